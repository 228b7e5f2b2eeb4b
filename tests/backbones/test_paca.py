"""What only PaCa-ViT has: clusters, a teacher, masks of padding."""

import re

import pytest
import torch
from helpers import TINY, build
from torch import nn

from mmdense.backbones.paca import find_content

# What a softmax over positions normalizes: a constant added to it changes nothing.
ZERO_GRADIENT = re.compile(
    r'blocks\.\d+\.attn\.k\.bias$|clustering\.assign\.bias$|teacher\.assigns\.\d\.bias$'
)


@pytest.mark.parametrize('name', [name for name in TINY if name.startswith('PaCaViT')])
def test_only_what_a_softmax_cancels_has_no_effect(name):
    model = build(name).double().eval()
    sum(m.square().sum() for m in model(torch.randn(2, 3, 64, 96).double())).backward()
    for key, p in model.named_parameters():
        assert p.grad.any() or ZERO_GRADIENT.search(key), key


def test_padding_is_masked():
    x = torch.randn(2, 3, 64, 96)
    model = build('PaCaViT', mask_padding=True).eval()
    for a, b in zip(build('PaCaViT').eval()(x), model(x)):  # nothing to mask
        torch.testing.assert_close(a, b)
    x[0, :, 40:] = 0
    x[0, :, :, 50:] = 0
    valid = find_content(x)
    assert valid[0].sum() == 40 * 50 and valid[1].all()
    assert find_content(torch.zeros(1, 3, 8, 8)).all()
    clustering = model.stages[0].blocks[0].attn.clustering
    where = valid[:, ::4, ::4].flatten(1)[:, None]
    assignment = clustering(torch.randn(2, 16 * 24, 16), (16, 24), where)
    assert not assignment.masked_select(~where).any()
    torch.testing.assert_close(assignment.sum(-1), torch.ones(2, 9))


def test_masked_padding_of_one_image_does_not_touch_another():
    model = build('PaCaViT', mask_padding=True).eval()
    x = torch.randn(2, 3, 64, 64)
    alone = model(x[1:])
    x[0, :, 32:] = 0
    for a, b in zip(alone, model(x)):
        torch.testing.assert_close(a[0], b[1])


def owners(model: nn.Module) -> list[tuple[int, int]]:
    """Which blocks, by stage and number, have a clustering of their own."""
    return [
        (i, j)
        for i, stage in enumerate(model.stages)
        for j, block in enumerate(stage.blocks)
        if block.attn.clustering is not None
    ]


def test_clusters_once_per_stage_or_every_kth_block():
    assert owners(build('PaCaViT')) == [(0, 0), (1, 0), (2, 0)]
    assert build('PaCaViT').stages[3].blocks[0].attn.cluster_norm is None
    every = [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    assert owners(build('PaCaViT', clustering_interval=1)) == every
    assert owners(build('PaCaViT', clustering_interval=2)) == [(0, 0), (1, 0), (2, 0), (2, 2)]
    assert owners(build('PaCaViT', clustering_interval=(0, 1, 0, 0))) == [*every[:4]]
    assert owners(build('PaCaViT-teacher')) == []


def test_assignment_is_a_distribution_over_positions():
    model = build('PaCaViT')
    clustering = model.stages[0].blocks[0].attn.clustering
    assignment = clustering(torch.randn(2, 12 * 17, 16), (12, 17))
    assert assignment.shape == (2, 9, 12 * 17)
    torch.testing.assert_close(assignment.sum(-1), torch.ones(2, 9))


@pytest.mark.parametrize(
    'name, kwargs, message',
    [
        ('PaCaViT', dict(clusters=(9, 9)), "'clusters': 2"),
        ('PaCaViT', dict(clustering='kmeans'), "unknown clustering 'kmeans'; known are conv, mlp"),
        ('PaCaViT', dict(clustering_interval=(0, 1)), "'clustering_interval': 2"),
        ('PaCaViT-teacher', dict(clusters=(0, 9, 9, 9)), 'teacher needs clusters in every stage'),
    ],
)
def test_says_what_is_wrong(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(name, **kwargs)
