"""What only MSF has: groups, maps of one stride."""

import pytest
import torch
from helpers import build
from mmengine.registry import MODELS


def test_feeds_a_pyramid():
    """mmseg's neck makes strides 4, 8, 16, 32 of the stride-16 maps."""
    model = build('MSFViT').eval()
    neck = MODELS.build(
        dict(type='mmseg.Feature2Pyramid', embed_dim=32, norm_cfg=dict(type='BN'))
    ).eval()
    with torch.no_grad():
        maps = neck(model(torch.randn(1, 3, 64, 96)))
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(attention='mean'), "unknown attention 'mean'; known are orig, msf"),
        (dict(groups=5), 'not divisible in 5 groups'),
        (dict(group_order='random'), "unknown order 'random'"),
        (dict(out_type='cls_token'), "unknown out_type 'cls_token'"),
    ],
)
def test_says_what_is_wrong(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build('MSFViT', **kwargs)
