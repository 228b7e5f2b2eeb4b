"""Zeros around an image change a map far from the border too: these are no plain convolutions."""

import pytest
import torch
from helpers import build
from torch import nn

# Why.
PADDING_CHANGES = {
    'PaCaViT': 'clusters gather from all positions',
    'GroupMixFormer': 'keys are normalized over, and summed over, all positions',
    'FCViT': 'the global context is a mean, and norms are taken, over all positions',
    'MSFViT': 'every position attends to every other',
}


def padding_change(model: nn.Module, padding: int = 160) -> float:
    """How much the upper left quarter of the coarsest map changes, relative to its magnitude."""
    torch.manual_seed(1)
    image = torch.randn(1, 3, 160, 160, dtype=torch.float64)
    padded = nn.functional.pad(image, (0, padding, 0, padding))
    with torch.no_grad():
        a, b = model.double().eval()(image)[-1], model(padded)[-1]
    h, w = a.shape[2] // 2, a.shape[3] // 2
    a, b = a[..., :h, :w], b[..., :h, :w]
    return ((a - b).norm() / a.norm()).item()


@pytest.mark.parametrize('name', PADDING_CHANGES)
def test_padding_changes_every_position(name):
    """A plain convolutional network changes near the border only."""
    assert padding_change(build(name)) > 1e-5


def test_padding_does_not_reach_across_a_small_convolutional_network():
    class Plain(nn.Sequential):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (super().forward(x),)

    assert padding_change(Plain(*(nn.Conv2d(3, 3, 3, 2, 1) for _ in range(3)))) < 1e-14


def test_paca_can_keep_padding_out_of_the_clusters():
    plain, masked = (padding_change(build('PaCaViT', mask_padding=m)) for m in (False, True))
    assert masked < 0.1 * plain
