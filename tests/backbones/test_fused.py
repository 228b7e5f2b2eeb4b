"""Layers that run as one give what they give one by one, and do so only where nobody looks."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from helpers import TINY, assert_same_gradients, build
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmdense.backbones import fused
from mmdense.backbones.feed_forward import MLP, SLICE_BYTES, feed_forward
from mmdense.backbones.fused import add_depthwise, chain, depthwise_side_by_side

pytestmark = pytest.mark.skipif(not fused.AVAILABLE, reason='oneDNN is not there')


def one_by_one(function, *args: object) -> Tensor:
    with mock.patch.object(fused, 'AVAILABLE', False), torch.no_grad():
        return function(*args)


def count_fused(function, *args: object) -> int:
    """How many products a call leaves to oneDNN together with what follows them."""
    with (
        mock.patch.object(fused, 'linear', wraps=fused.linear) as linear,
        mock.patch.object(fused, 'conv', wraps=fused.conv) as conv,
    ):
        function(*args)
    return linear.call_count + conv.call_count


def assert_same(function, *args: object) -> None:
    with torch.no_grad():
        assert count_fused(function, *args) > 0
        found = function(*args)
    expected = one_by_one(function, *args)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)


def settle(module: nn.Module) -> nn.Module:
    """Batch norms with statistics of their own, everything in eval mode."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    return module.eval()


@pytest.mark.parametrize('slice_bytes', [SLICE_BYTES, 5000])
@pytest.mark.parametrize('name', TINY)
def test_backbones(name, slice_bytes, monkeypatch):
    monkeypatch.setattr('mmdense.backbones.feed_forward.SLICE_BYTES', slice_bytes)
    monkeypatch.setattr('mmdense.backbones.groupmixformer.SLICE_BYTES', slice_bytes)
    model = settle(build(name))
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert count_fused(model, image) > 0
        found = model(image)
    for ours, expected in zip(found, one_by_one(model, image), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


class TestChain:
    @pytest.mark.parametrize('bias', [True, False])
    @pytest.mark.parametrize('groups', [1, 4])
    @pytest.mark.parametrize('follow', [(), (nn.GELU(),), (F.gelu,), (nn.Hardswish(), nn.ReLU())])
    @pytest.mark.parametrize('norm', [nn.BatchNorm2d, nn.SyncBatchNorm, None])
    def test_convolutions(self, norm, follow, groups, bias):
        conv = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=groups, bias=bias)
        steps = [conv, None, settle(norm(8)) if norm else None, *follow]
        assert_same(lambda x: chain(x, *steps), torch.randn(2, 4, 9, 7))

    @pytest.mark.parametrize('follow', [(), (nn.GELU(),), (nn.Hardswish(), nn.ReLU())])
    @pytest.mark.parametrize('norm', [None, nn.BatchNorm2d(8), nn.BatchNorm2d(8, affine=False)])
    @pytest.mark.parametrize('bias', [True, False])
    def test_pointwise_convolutions(self, bias, norm, follow):
        """They are linear layers of the channels."""
        steps = nn.Conv2d(4, 8, 1, bias=bias), norm and norm.eval(), *follow
        assert_same(lambda x: chain(x, *steps), torch.randn(2, 4, 9, 7))

    @pytest.mark.parametrize('has_wide_registers', [False, True])
    @pytest.mark.parametrize('activation', ['none', 'gelu', 'hardswish'])
    @pytest.mark.parametrize('channels', [16, fused.MANY_CHANNELS])
    def test_every_way_of_a_product(self, channels, activation, has_wide_registers, monkeypatch):
        monkeypatch.setattr(fused, 'HAS_WIDE_REGISTERS', has_wide_registers)
        x, weight, bias = torch.randn(2, 5, channels), torch.randn(7, channels), torch.randn(7)
        expected = F.linear(x, weight, bias)
        if activation != 'none':
            expected = getattr(F, activation)(expected)
        with torch.no_grad():
            found = fused.linear(x, weight, bias, activation)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize('follow', [(), (F.hardswish,), (F.gelu, nn.Linear(5, 3))])
    def test_linear_layers(self, follow):
        steps = nn.Linear(6, 5), *follow
        assert_same(lambda x: chain(x, *steps), torch.randn(2, 11, 6))

    def test_sequences_in_sequences(self):
        inner = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Identity(), nn.BatchNorm2d(4), nn.GELU())
        steps = settle(nn.Sequential(inner, nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2)))
        assert_same(lambda x: chain(x, steps), torch.randn(1, 3, 6, 5))

    def test_the_approximate_gelu_is_not_the_exact_one(self):
        steps = nn.Linear(6, 50), nn.GELU(approximate='tanh')
        x = torch.randn(20, 6)
        with torch.no_grad():
            assert torch.equal(chain(x, *steps), steps[1](chain(x, steps[0])))

    def test_a_norm_in_training_learns_its_statistics(self):
        norm = nn.BatchNorm2d(4)
        x = torch.randn(2, 3, 5, 5)
        conv = nn.Conv2d(3, 4, 1)
        with torch.no_grad():
            found = chain(x, conv, norm, F.gelu)
            expected = F.gelu(F.batch_norm(conv(x), None, None, norm.weight, norm.bias, True))
        torch.testing.assert_close(found, expected)
        assert norm.num_batches_tracked == 1

    @pytest.mark.parametrize('number', range(4))
    def test_hooks_see_what_they_would_see(self, number):
        steps = settle(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU()))
        watched = [steps, *steps][number]
        seen = []
        watched.register_forward_hook(lambda module, args, out: seen.append(out))
        x = torch.randn(1, 3, 6, 6)
        with torch.no_grad():
            chain(x, steps)
        one_by_one(chain, x, steps)
        torch.testing.assert_close(*seen, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize('name', TINY)
    def test_hooks_of_gradients_are_called(self, name):
        """Of every layer but those that assign clusters, whose weights stand in a product."""
        model = build(name).train()
        missed = set()
        for path, layer in model.named_modules():
            is_nothing = isinstance(layer, (nn.Identity, DropPath)) or '.assign' in path
            if not (list(layer.children()) or is_nothing):
                missed.add(path)
                layer.register_full_backward_hook(lambda *args, path=path: missed.discard(path))
        sum(t.sum() for t in model(torch.randn(2, 3, 64, 64))).backward()
        assert not missed


class TestDepthwise:
    @pytest.mark.parametrize('kernel', [3, 7])
    def test_shortcut(self, kernel):
        layer = nn.Conv2d(6, 6, kernel, padding=kernel // 2, groups=6)
        assert_same(add_depthwise, torch.randn(2, 6, 9, 8), layer)

    def test_several_windows(self):
        layers = [
            nn.Conv2d(width, width, window, padding=window // 2, groups=width)
            for width, window in ((2, 3), (5, 7), (3, 5))
        ]
        assert_same(depthwise_side_by_side, torch.randn(2, 10, 9, 8), layers)


@pytest.mark.parametrize('slice_bytes', [2**30, 40_000, 1])
@pytest.mark.parametrize('dwconv, shortcut', [(False, False), (True, False), (True, True)])
def test_feed_forward(dwconv, shortcut, slice_bytes, monkeypatch):
    """Also in slices, the last of which is narrower."""
    monkeypatch.setattr('mmdense.backbones.feed_forward.SLICE_BYTES', slice_bytes)
    monkeypatch.setattr('mmdense.backbones.groupmixformer.SLICE_BYTES', slice_bytes)
    mlp = MLP(12, 50, dwconv, shortcut)
    assert_same(mlp, torch.randn(2, 99, 12), (11, 9))


def test_feed_forward_of_convolutions():
    fc1, fc2 = nn.Conv2d(6, 20, 1, bias=False), nn.Conv2d(20, 6, 1, bias=False)
    dwconv = nn.Conv2d(20, 20, 3, padding=1, groups=20, bias=False)
    assert_same(feed_forward, torch.randn(2, 20, 6), (4, 5), fc1, dwconv, fc2)


class TestLinear:
    """Gradients of a linear layer whose products are oneDNN's."""

    @pytest.fixture(autouse=True, params=[5, 320])
    def _wide_registers(self, request, monkeypatch):
        monkeypatch.setattr(fused, 'HAS_WIDE_REGISTERS', True)
        monkeypatch.setattr(fused, 'MANY_CHANNELS', request.param)  # those of weights' gradients

    def inputs(self, *without: int) -> list[Tensor]:
        shapes = (2, 3, 6), (5, 6), (5,)
        return [torch.randn(s, requires_grad=i not in without) for i, s in enumerate(shapes)]

    @pytest.mark.parametrize('without', [(), (0,), (1,), (2,), (0, 1), (1, 2)])
    def test_gradients(self, without):
        inputs = self.inputs(*without)
        asked = [t for t in inputs if t.requires_grad]
        found, expected = fused.project(*inputs), F.linear(*inputs)
        assert 'Linear' in type(found.grad_fn).__name__
        torch.testing.assert_close(found, expected)
        assert_same_gradients(found, expected, asked, tolerance=1e-5)

    def test_without_a_bias(self):
        x, weight, _ = self.inputs()
        fused.project(x, weight, None).sum().backward()
        torch.testing.assert_close(x.grad, weight.detach().sum(dim=0).expand(2, 3, 6))

    def test_second_derivatives(self):
        found = []
        for function in (fused.project, F.linear):
            torch.manual_seed(0)
            inputs = self.inputs()
            first = torch.autograd.grad(function(*inputs).pow(3).sum(), inputs, create_graph=True)
            found.append(torch.autograd.grad(sum(g.square().sum() for g in first), inputs))
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-2)

    def test_no_rows_and_other_types(self):
        x, weight, bias = self.inputs()
        assert fused.project(x[:0], weight, bias).shape == (0, 3, 5)
        assert fused.project(x.double(), weight.double(), bias.double()).dtype == torch.float64


class Doubled(nn.Linear):
    """What somebody has made of a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class TestLayersAreCalledAsTheyStand:
    x = torch.randn(2, 12, 8)

    def calls(self, mlp: MLP, x: Tensor | None = None) -> int:
        return count_fused(mlp, self.x if x is None else x, (3, 4))

    def test_with_gradients(self):
        """But for the feed-forward part and, where it pays, linear layers, that have backward
        passes of their own."""
        steps = nn.Linear(8, 6), F.gelu, nn.Linear(6, 4)
        for has_wide_registers, calls in ((False, 0), (True, 2)):
            with mock.patch.object(fused, 'HAS_WIDE_REGISTERS', has_wide_registers):
                assert count_fused(lambda x: chain(x, *steps), self.x) == calls
                assert self.calls(MLP(8, 16)) == 2

    @torch.no_grad()
    def test_in_autocast(self):
        with torch.autocast('cpu', torch.bfloat16):
            assert self.calls(MLP(8, 16)) == 0

    @torch.no_grad()
    def test_other_types(self):
        assert self.calls(MLP(8, 16).double(), self.x.double()) == 0
        assert self.calls(MLP(8, 16).to('meta'), self.x.to('meta')) == 0

    @torch.no_grad()
    def test_no_pictures(self):
        assert MLP(8, 16)(self.x[:0], (3, 4)).shape == (0, 12, 8)

    @torch.no_grad()
    def test_layers_of_somebody_else(self):
        mlp = MLP(8, 16)
        mlp.fc2 = Doubled(16, 8)
        assert self.calls(mlp) == 0
        expected = 2 * F.linear(F.gelu(mlp.fc1(self.x)), mlp.fc2.weight, mlp.fc2.bias)
        torch.testing.assert_close(mlp(self.x), expected)

    @torch.no_grad()
    def test_parametrized_weights(self):
        mlp = MLP(8, 16)
        nn.utils.parametrizations.weight_norm(mlp.fc1)
        assert self.calls(mlp) == 0

    @torch.no_grad()
    def test_traced(self):
        graph = torch.jit.trace(MLP(8, 16), self.x).graph
        assert 'mkldnn' not in str(graph)

    @torch.no_grad()
    def test_exported(self):
        program = torch.export.export(MLP(8, 16), (self.x,))
        assert 'mkldnn' not in str(program.graph)


@torch.no_grad()
@pytest.mark.parametrize('name', TINY)
def test_torch_counts_the_same_products(name):
    model, image = settle(build(name)), torch.randn(1, 3, 64, 64)

    def count(image: Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            model(image)
        return counter.get_total_flops()

    assert count(image) == pytest.approx(one_by_one(count, image), rel=0.02)
