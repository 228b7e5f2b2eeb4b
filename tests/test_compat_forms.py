"""The stand-ins of mmcv's operators, in closed form and against plain loops."""

import math

import numpy as np
import pytest
import torch
from mmcv.ops import RoIAlign, SigmoidFocalLoss, nms, soft_nms

from mmdense import compat

# A and B overlap by 50 of 100, C lies apart.
BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30]])
SCORES = torch.tensor([0.9, 0.8, 0.7])


def overlap(a: list[float], b: list[float], offset: int) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    inter = max(width, 0) * max(height, 0)
    areas = [(x[2] - x[0] + offset) * (x[3] - x[1] + offset) for x in (a, b)]
    return inter / (sum(areas) - inter)


def soft_nms_by_loops(boxes, scores, threshold, sigma, min_score, method, offset):
    """Bodla et al., Fig. 2: take the best, decay the rest, until nothing is left."""
    left = [(score, i) for i, score in enumerate(scores)]
    kept = []
    while left:
        left.sort(key=lambda entry: -entry[0])
        score, best = left.pop(0)
        kept.append((best, score))
        decayed = []
        for other, i in left:
            iou = overlap(boxes[best], boxes[i], offset)
            if method == 'gaussian':
                other *= math.exp(-iou * iou / sigma)
            elif iou >= threshold:
                other *= 1 - iou if method == 'linear' else 0
            if other >= min_score:
                decayed.append((other, i))
        left = decayed
    return kept


def test_soft_nms_gaussian_by_hand():
    """B's score decays to 0.8 exp(-0.5^2 / 0.5) = 0.485 and falls behind C's."""
    dets, keep = soft_nms(BOXES, SCORES, 0.3, sigma=0.5, min_score=0.1, method='gaussian')
    assert keep.tolist() == [0, 2, 1]
    assert dets[:, 4].tolist() == pytest.approx([0.9, 0.7, 0.8 * math.exp(-0.5)])
    assert torch.equal(dets[:, :4], BOXES[keep])
    assert len(soft_nms(BOXES, SCORES, 0.3, sigma=0.5, min_score=0.5, method='gaussian')[1]) == 2


def test_soft_nms_naive_by_hand():
    """At the threshold a box goes, beyond it stays with its score."""
    kept = {t: soft_nms(BOXES, SCORES, t, min_score=0.1, method='naive') for t in (0.5, 0.51)}
    assert kept[0.5][1].tolist() == [0, 2]
    assert kept[0.51][1].tolist() == [0, 1, 2]
    assert kept[0.51][0][:, 4].tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_soft_nms_linear_by_hand():
    """At the threshold a score decays, here to 0.8 (1 - 0.5); below it stays."""
    for threshold, score in ((0.5, 0.4), (0.51, 0.8)):
        dets, keep = soft_nms(BOXES, SCORES, threshold, min_score=0.1, method='linear')
        assert dict(zip(keep.tolist(), dets[:, 4].tolist()))[1] == pytest.approx(score)


def test_soft_nms_keeps_a_score_of_just_the_least():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    scores = torch.tensor([0.75, 0.25])
    assert len(soft_nms(boxes, scores, 0.3, min_score=0.25, method='linear')[1]) == 2
    assert len(soft_nms(boxes, scores, 0.3, min_score=0.26, method='linear')[1]) == 1


def test_soft_nms_offset_counts_pixels():
    """From 0 to 9 is ten pixels: an overlap of 50 / 150."""
    boxes = torch.tensor([[0.0, 0, 9, 9], [5, 0, 14, 9]])
    scores = torch.tensor([0.9, 0.6])
    dets, _ = soft_nms(boxes, scores, 0.3, method='linear', offset=1)
    assert dets[1, 4].item() == pytest.approx(0.6 * (1 - 1 / 3))
    dets, _ = soft_nms(boxes, scores, 0.28, method='linear', offset=0)
    assert dets[1, 4].item() == pytest.approx(0.6 * (1 - 36 / 126))


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms_equals_loops(method, offset):
    torch.manual_seed(0)
    corner = torch.randint(0, 20, (30, 2))
    boxes = torch.cat([corner, corner + torch.randint(2, 20, (30, 2))], dim=1).float()
    scores = torch.rand(30)
    dets, keep = soft_nms(boxes, scores, 0.4, 0.3, 0.05, method, offset)
    wanted = soft_nms_by_loops(boxes.tolist(), scores.tolist(), 0.4, 0.3, 0.05, method, offset)
    assert 3 < len(wanted) < 30
    assert keep.tolist() == [i for i, _ in wanted]
    assert dets[:, 4].tolist() == pytest.approx([score for _, score in wanted], rel=1e-5)


def test_soft_nms_leaves_its_input_alone():
    scores = SCORES.clone()
    soft_nms(BOXES, scores, 0.3, method='gaussian')
    assert torch.equal(scores, SCORES)


@pytest.mark.parametrize('offset', [0, 1])
def test_nms_equals_loops(offset):
    torch.manual_seed(1)
    corner = torch.randint(0, 20, (40, 2))
    boxes = torch.cat([corner, corner + torch.randint(1, 12, (40, 2))], dim=1).float()
    scores = torch.rand(40)
    wanted = []
    for i in scores.argsort(descending=True).tolist():
        a = boxes[i].tolist()
        if all(overlap(a, boxes[j].tolist(), offset) <= 0.313 for j in wanted):
            wanted.append(i)
    assert nms(boxes, scores, 0.313, offset=offset)[1].tolist() == wanted


def focal(x: float, positive: bool, gamma: float, alpha: float) -> tuple[float, float]:
    """Focal loss of one logit and its derivative (Lin et al., eq. 5, differentiated by hand)."""
    p = 1 / (1 + math.exp(-x))
    if positive:
        loss = -alpha * (1 - p) ** gamma * math.log(p)
        slope = alpha * (1 - p) ** gamma * (gamma * p * math.log(p) - (1 - p))
    else:
        loss = -(1 - alpha) * p**gamma * math.log(1 - p)
        slope = (1 - alpha) * p**gamma * (p - gamma * (1 - p) * math.log(1 - p))
    return loss, slope


@pytest.mark.parametrize('weighted', [False, True])
def test_focal_loss_and_its_gradient_by_hand(weighted):
    """The weight of a row is that of its target; the last index is background."""
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(6, 3)) * 2).requires_grad_()
    target = [0, 1, 2, 0, 1, 2] if weighted else [0, 1, 2, 3, 1, 3]
    weight = [0.5, 2.0, 3.0] if weighted else None
    tensor = torch.tensor(weight, dtype=torch.float64) if weighted else None
    loss = SigmoidFocalLoss(gamma=1.5, alpha=0.3, weight=tensor, reduction='none')
    got = loss(logits, torch.tensor(target))
    got.sum().backward()
    for i, row in enumerate(logits.tolist()):
        factor = weight[target[i]] if weighted else 1
        for k, x in enumerate(row):
            value, slope = focal(x, target[i] == k, 1.5, 0.3)
            assert got[i, k].item() == pytest.approx(factor * value)
            assert logits.grad[i, k].item() == pytest.approx(factor * slope)


def test_roi_align_of_a_ramp():
    """A linear map averages to its value in the middle of each bin: rows along y, columns x."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing='ij')
    rois = torch.tensor([[0, 8.0, 4, 40, 24]])  # x 4..20, y 2..12 at half the size
    pooled = RoIAlign((2, 4), 0.5, 0)(torch.stack([x, y])[None], rois)[0]
    # Aligned: pixel centres lie at integers, so half a pixel is taken off.
    columns = 4 + 16 * (torch.arange(4) + 0.5) / 4 - 0.5
    rows = 2 + 10 * (torch.arange(2) + 0.5) / 2 - 0.5
    torch.testing.assert_close(pooled[0], columns.expand(2, 4))
    torch.testing.assert_close(pooled[1], rows[:, None].expand(2, 4))


def test_roi_align_backward_is_the_transpose():
    """<pool(f), g> = <f, pool'(g)>, for bins that are not square."""
    torch.manual_seed(0)
    feature = torch.randn(2, 3, 9, 13).requires_grad_()
    rois = torch.tensor([[0, 1.0, 2, 17, 9], [1, 4, 1, 20, 16], [1, 0, 0, 9, 7]])
    pooled = RoIAlign((3, 5), 0.5, 2)(feature, rois)
    gradient = torch.randn_like(pooled)
    pooled.backward(gradient)
    assert (feature * feature.grad).sum().item() == pytest.approx(
        (pooled * gradient).sum().item(), rel=1e-4
    )


def test_configs_of_ours_stay_in_the_scope_of_their_toolbox():
    from mmengine.config import Config

    path, scope = Config._get_cfg_path('mmdense::digits/paca_digits.py', 'mine.py')
    assert scope is None and path.endswith('digits/paca_digits.py')
    path, scope = Config._get_cfg_path('mmdet::_base_/default_runtime.py', 'mine.py')
    assert scope == 'mmdet' and path.endswith('default_runtime.py')
    compat.mend_config_lookup()  # once more changes nothing
    assert Config._get_cfg_path('mmdense::digits/paca_digits.py', 'mine.py')[1] is None
