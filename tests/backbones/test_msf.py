"""What only MSF has: mean shift, groups, maps of one stride."""

import pytest
import torch
from helpers import build
from mmengine.registry import MODELS

from mmdense.backbones.msf import mean_shift


def test_attention_is_a_step_of_mean_shift():
    """The attention is the Gaussian-weighted mean, with and without gradients."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 30, 8, dtype=torch.float64).unbind()
    distance = (q[..., :, None, :] - k[..., None, :, :]).square().sum(-1)
    want = (-distance / 2 / 8**0.5).softmax(-1) @ v
    torch.testing.assert_close(mean_shift(q, k, v), want)
    with torch.no_grad():
        torch.testing.assert_close(mean_shift(q, k, v), want)


def test_mean_shift_keeps_its_precision_in_bfloat16():
    """|k|^2 / 2 may be large: its mean is taken out before it is rounded."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 6, 196, 64, dtype=torch.float64).mul(2).unbind()
    want = mean_shift(q, k, v)
    rounded = [t.bfloat16() for t in (q, k, v)]
    exact = mean_shift(*(t.double() for t in rounded))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            got = mean_shift(*rounded).double()
        assert (got - exact).norm() < 0.02 * want.norm()


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
