"""What only MSF has: mean shift, groups, maps of one stride."""

import pytest
import torch
from helpers import assert_same_gradients, build
from mmengine.registry import MODELS
from torch import Tensor

from mmdense.backbones import fused, msf
from mmdense.backbones.msf import MeanShift, mean_shift


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


def make_parts(num_tokens: int = 30, dtype: torch.dtype = torch.float64) -> Tensor:
    """q, k, v and p of three images."""
    torch.manual_seed(0)
    return torch.randn(3, num_tokens, 4, 2, 8, dtype=dtype, requires_grad=True)


def by_kernel(parts: Tensor) -> Tensor:
    q, k, v, p = parts.permute(2, 0, 3, 1, 4)
    return (mean_shift(q, k, v) - p).transpose(1, 2)


@pytest.mark.parametrize('num_images', [3, 2, 1])
def test_gradients_of_plain_products(num_images, monkeypatch):
    parts = make_parts()
    monkeypatch.setattr(msf, 'WEIGHT_BYTES', num_images * MeanShift.count_bytes(parts))
    found, expected = MeanShift.call(parts), by_kernel(parts)
    torch.testing.assert_close(found, expected)
    assert_same_gradients(found, expected, [parts])


def test_no_weights_are_kept():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda t: t):
        MeanShift.call(make_parts(64))
    assert [t.numel() for t in kept] == 3 * [3 * 2 * 64 * 8]


@pytest.mark.skipif(not fused.AVAILABLE, reason='oneDNN is not there')
def test_where_plain_products_are_used(monkeypatch):
    parts = make_parts(dtype=torch.float32)
    assert MeanShift.takes(parts)
    assert not MeanShift.takes(parts.double())
    with torch.no_grad():
        assert not MeanShift.takes(parts)
    monkeypatch.setattr(msf, 'WEIGHT_BYTES', MeanShift.count_bytes(parts) - 1)
    assert not MeanShift.takes(parts)


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
