"""The feed-forward part with gradients: PyTorch's own, layer by layer, are the reference."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same_gradients
from torch import Tensor, nn

from mmdense.backbones import fused
from mmdense.backbones.feed_forward import MLP, FeedForward, feed_forward

SIZE = (4, 5)
B, N, C, D = 2, 20, 6, 16
SHAPES = ((B, N, C), (D, C), (D,), (D, 1, 3, 3), (D,), (C, D), (C,))
WITHOUT = {'all': (), 'no convolution': (3, 4), 'no biases': (2, 4, 6)}


def make_inputs(
    without: tuple[int, ...] = (), shapes: tuple[tuple[int, ...], ...] = SHAPES
) -> list[Tensor | None]:
    return [
        None if i in without else torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for i, shape in enumerate(shapes)
    ]


def reference(x, rows, bias1, kernel, bias, columns, bias2, size=SIZE) -> Tensor:
    """In another layout, with PyTorch's layers alone."""
    u = F.linear(x, rows, bias1)
    if kernel is not None:
        u = u.transpose(1, 2).reshape(len(x), D, *size)
        u = F.conv2d(u, kernel, bias, padding=1, groups=D).flatten(2).transpose(1, 2)
    return F.linear(F.gelu(u), columns, bias2)


@pytest.mark.parametrize('without', WITHOUT.values(), ids=WITHOUT)
def test_gradients(without):
    inputs = make_inputs(without)
    given = [t for t in inputs if t is not None]
    found, expected = FeedForward.apply(SIZE, *inputs), reference(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert_same_gradients(found, expected, given)


@pytest.mark.parametrize('size', [(1, 1), (2, 2), (1, 9), (7, 2)])
def test_maps_smaller_than_the_window(size):
    shapes = ((B, size[0] * size[1], C), *SHAPES[1:])
    inputs = make_inputs(shapes=shapes)
    found, expected = FeedForward.apply(size, *inputs), reference(*inputs, size=size)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert_same_gradients(found, expected, inputs)
    inputs[3].requires_grad_(False)  # the kernel is frozen
    rest = [t for t in inputs if t.requires_grad]
    found, expected = FeedForward.apply(size, *inputs), reference(*inputs, size=size)
    assert_same_gradients(found, expected, rest)


@pytest.mark.parametrize('wanted', range(len(SHAPES)))
def test_only_what_is_asked_for(wanted):
    inputs = make_inputs()
    for i, t in enumerate(inputs):
        t.requires_grad_(i == wanted)
    FeedForward.apply(SIZE, *inputs).square().sum().backward()
    assert [t.grad is not None for t in inputs] == [i == wanted for i in range(len(SHAPES))]


def test_second_derivatives():
    """Of a few numbers: each costs an evaluation."""
    inputs = make_inputs(shapes=((2, 6, 2), (3, 2), (3,), (3, 1, 3, 3), (3,), (2, 3), (2,)))
    assert torch.autograd.gradgradcheck(lambda *args: FeedForward.apply((2, 3), *args), inputs)


def kept_wide(function: Callable, *args: object) -> int:
    """How many tensors of D channels a call keeps for the backward pass."""
    kept = set()

    def pack(t: Tensor) -> Tensor:
        if t.numel() == B * N * D:
            kept.add(t.data_ptr())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        function(*args)
    return len(kept)


@pytest.mark.skipif(not fused.AVAILABLE, reason='oneDNN is not there')
class TestLayers:
    x = torch.randn(B, N, C)

    def test_keep_no_more_than_needed(self):
        assert kept_wide(MLP(C, D, dwconv=True, shortcut=True), self.x, SIZE) == 1
        assert kept_wide(MLP(C, D), self.x) == 1

    def test_some_images_at_a_time(self, monkeypatch):
        mlp = MLP(C, D, dwconv=True, shortcut=True)

        def learn() -> list[Tensor]:
            y = mlp(self.x, SIZE)
            return [y, *torch.autograd.grad(y.square().sum(), list(mlp.parameters()))]

        whole = learn()
        monkeypatch.setattr('mmdense.backbones.feed_forward.SLICE_BYTES', 1)
        assert kept_wide(mlp, self.x, SIZE) == 0  # only those of an image
        for a, b in zip(learn(), whole, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize('shortcut', [False, True])
    @pytest.mark.parametrize('kind', ['linear', 'convolutions'])
    def test_learn_the_same(self, kind, shortcut, monkeypatch):
        if kind == 'linear':
            fc1, fc2 = nn.Linear(C, D), nn.Linear(D, C)
        else:
            fc1, fc2 = nn.Conv2d(C, D, 1), nn.Conv2d(D, C, 1)
        layers = nn.ModuleList([fc1, nn.Conv2d(D, D, 3, padding=1, groups=D), fc2])

        def learn() -> list[Tensor]:
            y = feed_forward(self.x, SIZE, *layers, shortcut)
            return torch.autograd.grad(y.square().sum(), list(layers.parameters()))

        assert kept_wide(feed_forward, self.x, SIZE, *layers, shortcut) == 1
        found = learn()
        monkeypatch.setattr(fused, 'AVAILABLE', False)
        assert kept_wide(feed_forward, self.x, SIZE, *layers, shortcut) > 1
        for a, b in zip(found, learn(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize('options', [dict(dilation=2, padding=2), dict(groups=2, padding=1)])
    def test_other_convolutions_are_called(self, options):
        conv = nn.Conv2d(D, D, 3, **{'groups': D, **options})
        mlp = MLP(C, D)
        mlp.dwconv = conv
        u = conv(mlp.fc1(self.x).transpose(1, 2).reshape(B, D, *SIZE)).flatten(2).transpose(1, 2)
        for enabled in (False, True):
            with torch.set_grad_enabled(enabled):
                torch.testing.assert_close(mlp(self.x, SIZE), mlp.fc2(F.gelu(u)))
