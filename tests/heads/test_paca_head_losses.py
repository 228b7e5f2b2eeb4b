"""The losses of PaCaSegHead in closed form."""

import math

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from mmdense.heads import PaCaSegHead

CLASSES = 3
# Two pixels of class 0, one of each other, and a lower half that nobody labelled.
LABEL = torch.tensor([[0, 1, 2, 0], [255, 255, 255, 255]])


def make_losses(logits: Tensor, clusters: Tensor, label: Tensor = LABEL, **kwargs) -> dict:
    """The losses of a head whose logits (K, H, W) are given."""
    head = PaCaSegHead([4], 4, num_classes=CLASSES, in_index=[0], **kwargs)
    head.get_logits = lambda inputs: (logits[None], clusters[None])
    return head.loss([], [SegDataSample(gt_sem_seg=PixelData(data=label[None]))], {})


def entropy(logits: Tensor, label: Tensor, ignored: int = 255) -> float:
    """Mean of -log softmax at the label, over the pixels that have one, in plain Python."""
    terms = []
    for row, column in torch.cartesian_prod(*map(torch.arange, label.shape)).tolist():
        wanted = int(label[row, column])
        if wanted != ignored:
            x = logits[:, row, column].tolist()
            terms.append(math.log(sum(map(math.exp, x))) - x[wanted])
    return sum(terms) / len(terms)


def test_cluster_loss_counts_two_fifths_and_ignored_pixels_not_at_all():
    torch.manual_seed(0)
    logits, clusters = torch.randn(2, CLASSES, *LABEL.shape)
    losses = make_losses(logits, clusters)
    assert set(losses) == {'loss_ce', 'acc_seg', 'loss_cluster', 'acc_cluster'}
    assert losses['loss_ce'].item() == pytest.approx(entropy(logits, LABEL), rel=1e-5)
    assert losses['loss_cluster'].item() == pytest.approx(0.4 * entropy(clusters, LABEL), rel=1e-5)


def test_of_logits_that_know_nothing():
    """log K and 0.4 log K, however many pixels are ignored."""
    nothing = torch.zeros(CLASSES, *LABEL.shape)
    losses = make_losses(nothing, nothing)
    assert losses['loss_ce'].item() == pytest.approx(math.log(CLASSES))
    assert losses['loss_cluster'].item() == pytest.approx(0.4 * math.log(CLASSES))


def test_accuracies_are_of_their_own_logits():
    """Always class 0 for the image: 2 of 4. Always class 1 for the clusters: 1 of 4."""
    first, second = torch.zeros(2, CLASSES, *LABEL.shape)
    first[0] = second[1] = 1
    losses = make_losses(first, second)
    assert losses['acc_seg'].item() == pytest.approx(50, abs=1e-3)
    assert losses['acc_cluster'].item() == pytest.approx(25, abs=1e-3)


def test_another_index_is_ignored():
    torch.manual_seed(0)
    logits, clusters = torch.randn(2, CLASSES, *LABEL.shape)
    label = torch.where(LABEL == 255, 7, LABEL)
    losses = make_losses(logits, clusters, label, ignore_index=7)
    assert losses['loss_ce'].item() == pytest.approx(entropy(logits, label, 7), rel=1e-5)
    assert losses['loss_cluster'].item() == pytest.approx(
        0.4 * entropy(clusters, label, 7), rel=1e-5
    )


def test_cluster_logits_grow_to_the_label():
    """Smooth, not in steps: at align_corners=False (0, 1) becomes (0, 1/4, 3/4, 1)."""
    coarse = torch.zeros(CLASSES, 1, 2)
    coarse[0, 0, 1] = 1
    fine = torch.zeros(CLASSES, *LABEL.shape)
    fine[0] = torch.tensor([0, 0.25, 0.75, 1])
    losses = make_losses(torch.zeros(CLASSES, *LABEL.shape), coarse)
    assert losses['loss_cluster'].item() == pytest.approx(0.4 * entropy(fine, LABEL), rel=1e-5)
