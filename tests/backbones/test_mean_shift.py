"""Mean shift: a Gaussian-weighted mean, by whatever computes it."""

from unittest import mock

import pytest
import torch
from helpers import assert_same_gradients
from torch import Tensor

from mmdense.backbones import fused, mean_shift
from mmdense.backbones.mean_shift import MeanShift


def test_attention_is_a_step_of_mean_shift():
    """The attention is the Gaussian-weighted mean, with and without gradients."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 30, 8, dtype=torch.float64).unbind()
    distance = (q[..., :, None, :] - k[..., None, :, :]).square().sum(-1)
    want = (-distance / 2 / 8**0.5).softmax(-1) @ v
    torch.testing.assert_close(mean_shift.mean_shift(q, k, v), want)
    with torch.no_grad():
        torch.testing.assert_close(mean_shift.mean_shift(q, k, v), want)


def test_mean_shift_keeps_its_precision_in_bfloat16():
    """|k|^2 / 2 may be large: its mean is taken out before it is rounded."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 6, 196, 64, dtype=torch.float64).mul(2).unbind()
    want = mean_shift.mean_shift(q, k, v)
    rounded = [t.bfloat16() for t in (q, k, v)]
    exact = mean_shift.mean_shift(*(t.double() for t in rounded))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            got = mean_shift.mean_shift(*rounded).double()
        assert (got - exact).norm() < 0.02 * want.norm()


def make_parts(num_tokens: int = 30, dtype: torch.dtype = torch.float64) -> Tensor:
    """q, k, v and p of three images."""
    torch.manual_seed(0)
    return torch.randn(3, num_tokens, 4, 2, 8, dtype=dtype, requires_grad=True)


def by_kernel(parts: Tensor) -> Tensor:
    q, k, v, p = parts.permute(2, 0, 3, 1, 4)
    return (mean_shift.mean_shift(q, k, v) - p).transpose(1, 2)


def test_gradients_of_plain_products():
    parts = make_parts()
    found, expected = MeanShift.apply(parts), by_kernel(parts)
    torch.testing.assert_close(found, expected)
    assert_same_gradients(found, expected, [parts])


def test_no_weights_are_kept():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda t: t):
        MeanShift.apply(make_parts(64))
    assert [t.numel() for t in kept] == 3 * [3 * 2 * 64 * 8]


def count_products(parts: Tensor) -> int:
    """In how many lots of images plain products are used."""
    with mock.patch.object(MeanShift, 'apply', wraps=MeanShift.apply) as function:
        torch.testing.assert_close(mean_shift.shift(parts), by_kernel(parts))
    return function.call_count


@pytest.mark.skipif(not fused.AVAILABLE, reason='oneDNN is not there')
def test_where_plain_products_are_used(monkeypatch):
    parts = make_parts(dtype=torch.float32)
    image_bytes = 2 * 30 * 30 * 4
    for allowed, lots in ((3, 1), (2, 2), (1, 3), (0.9, 0)):
        monkeypatch.setattr(mean_shift, 'WEIGHT_BYTES', int(allowed * image_bytes))
        assert count_products(parts) == lots
    monkeypatch.undo()
    assert count_products(parts.double()) == 0
    with torch.no_grad():
        assert count_products(parts) == 0
