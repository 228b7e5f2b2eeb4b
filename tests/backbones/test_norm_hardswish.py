"""Batch norm and Hardswish in one: PyTorch's own, one after the other, are the reference."""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same_gradients
from torch import Tensor, nn

from mmdense.backbones import fused, norm_hardswish
from mmdense.backbones.fused import chain
from mmdense.backbones.norm_hardswish import NormHardswish


def make_norm(training: bool, dtype: torch.dtype = torch.float32) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(5, momentum=0.3).to(dtype).train(training)
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
        tensor.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm


def make_map(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    x = 2 * torch.randn(shape, dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def one_by_one(x: Tensor, norm: nn.Module) -> Tensor:
    return F.hardswish(norm(x))


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('without', [(), (0,), (1,), (1, 2)])
def test_gradients(without, training):
    norm = make_norm(training, torch.float64)
    other = copy.deepcopy(norm)
    x = make_map(3, 5, 4, 6, dtype=torch.float64)
    for i, tensor in enumerate((x, norm.weight, norm.bias)):
        tensor.requires_grad_(i not in without)
    found = norm_hardswish.call(x, norm)
    running = other.running_mean, other.running_var
    expected = F.hardswish(
        F.batch_norm(x, *running, norm.weight, norm.bias, training, norm.momentum, norm.eps)
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    inputs = [t for t in (x, norm.weight, norm.bias) if t.requires_grad]
    assert_same_gradients(found, expected, inputs)
    torch.testing.assert_close(norm.running_mean, other.running_mean)
    torch.testing.assert_close(norm.running_var, other.running_var)
    assert norm.num_batches_tracked == int(training)


@pytest.mark.parametrize('training', [True, False])
def test_second_derivatives(training):
    norm = make_norm(training, torch.float64)
    x = make_map(2, 5, 2, 3, dtype=torch.float64)
    running = norm.running_mean.clone(), norm.running_var.clone()

    def function(*inputs: Tensor) -> Tensor:
        return NormHardswish.apply(*inputs, running, training, 0.0, norm.eps)

    assert torch.autograd.gradgradcheck(function, (x, norm.weight, norm.bias), atol=1e-4)


def test_a_gradient_of_another_layout():
    """As behind a concatenation of several."""
    norm, x = make_norm(True), make_map(2, 5, 4, 4)
    found, expected = (
        torch.cat([x, function(x, norm)], dim=1).contiguous()
        for function in (norm_hardswish.call, one_by_one)
    )
    assert_same_gradients(found, expected, [x, norm.weight, norm.bias], tolerance=1e-4)


def test_memory_is_one_map():
    norm, x = make_norm(True), make_map(2, 5, 32, 32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda t: t):
        norm_hardswish.call(x, norm)
    assert sum(t.numel() == x.numel() for t in kept) == 1


def is_used(norm: nn.Module, x: Tensor) -> bool:
    return 'NormHardswish' in type(chain(x, norm, nn.Hardswish()).grad_fn).__name__


@pytest.mark.skipif(not fused.AVAILABLE, reason='oneDNN is not there')
def test_where_it_is_used():
    x = make_map(2, 5, 4, 4)
    assert is_used(make_norm(True), x) and is_used(make_norm(False), x)
    assert not is_used(make_norm(True), x.detach().contiguous().requires_grad_())
    assert not is_used(make_norm(True, torch.float64), x.double())
    assert not is_used(nn.BatchNorm2d(5, momentum=None), x)
    assert not is_used(nn.BatchNorm2d(5, affine=False), x)
    assert not is_used(nn.BatchNorm2d(5, track_running_stats=False), x)
    assert not is_used(nn.SyncBatchNorm(5).eval(), x)
    with torch.autocast('cpu', torch.bfloat16):
        assert not is_used(make_norm(True), x)
    watched = make_norm(True)
    watched.register_forward_hook(lambda module, args, out: None)
    assert not is_used(watched, x)
    seen = []
    activation = nn.Hardswish()
    activation.register_forward_hook(lambda module, args, out: seen.append(args))
    chain(x, make_norm(True), activation)
    assert len(seen) == 1


def test_one_position_has_no_statistics():
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        chain(make_map(1, 5, 1, 1), make_norm(True), nn.Hardswish())
