"""What the families' views share, by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from mmdense.families.views import number, place, split_heads, stride_of, summarize, token_at
from mmdense.inference.visualize import name_place

SIZE = (3, 5)  # rows and columns of tokens


@pytest.mark.parametrize(
    'query, token',
    [
        ((0, 0), 0),
        ((31, 0), 0),
        ((32, 0), 1),
        ((0, 32), 5),
        ((100, 50), 1 * 5 + 3),
        ((159, 95), 14),
        ((160, 95), 14),  # beyond the border, where an image fills no whole token
        ((159, 96), 14),
        ((1000, 0), 4),
        ((0, 1000), 10),
    ],
)
def test_token_of_a_pixel(query, token):
    """x goes along the row, y picks it; beyond the border it is the last."""
    assert token_at(query, 32, SIZE) == token


def make_feature() -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Eight channels: three patterns of falling strength, on directions that are orthonormal."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.linalg.qr(torch.randn(60, 8, generator=generator))[0]
    patterns = torch.linalg.qr(torch.cat([torch.ones(60, 1), patterns], dim=1))[0][:, 1:5]
    directions = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0][:, :4]
    strength = torch.tensor([8.0, 4.0, 2.0, 0.5])
    tokens = (patterns * strength) @ directions.T + 3  # (60, 8), the mean says nothing
    components = [p * s for p, s in zip((patterns * directions.sum(dim=0).sign()).T, strength)]
    return tokens.T.unflatten(1, (6, 10)), components


def test_principal_components_by_strength_with_a_fixed_sign():
    """Red is the strongest; whatever sign the solver gives, a component's channels sum up."""
    feature, components = make_feature()
    colours = summarize('x', feature, 4).colours
    assert colours.shape == (6, 10, 3)
    for i in range(3):
        values = components[i].numpy()
        low, high = np.quantile(values, [0.02, 0.98])
        wanted = ((values - low) / (high - low)).clip(0, 1)
        np.testing.assert_allclose(colours[..., i].flatten(), wanted, atol=2e-3)


def test_channels_of_largest_variance_are_shown_in_their_order():
    """Not those of largest mean; five of them, or all where there are fewer."""
    torch.manual_seed(0)
    spread = torch.tensor([0.1, 5, 0.2, 4, 3, 0.3, 2, 6.0])
    noise = torch.randn(8, 6, 10)
    noise = (noise - noise.mean(dim=(1, 2), keepdim=True)) / noise.std(dim=(1, 2), keepdim=True)
    feature = (
        noise * spread[:, None, None] + torch.tensor([90.0, 0, 70, 0, 0, 50, 0, 0])[:, None, None]
    )
    view = summarize('stage1', feature, 8)
    assert view.labels == (
        'strength',
        'channel 2',
        'channel 4',
        'channel 5',
        'channel 7',
        'channel 8',
    )
    assert torch.equal(view.maps[1:], feature[[1, 3, 4, 6, 7]])
    np.testing.assert_allclose(view.maps[0], np.sqrt((feature.numpy() ** 2).mean(0)), rtol=1e-5)
    assert (view.name, view.stride) == ('stage1', 8)
    assert len(summarize('x', feature[:3], 8).labels) == 4


def test_a_flat_map_has_colours_too():
    view = summarize('x', torch.ones(4, 2, 2), 8)
    assert view.colours.isfinite().all() and (view.maps == 1).all()


def test_names_of_places():
    assert place('stages.0.blocks.1.attn') == 'stage1_block2'
    assert place('stages.2') == 'stage3'
    assert place('layers.11.attn') == 'layer12'
    assert place('stages.3.blocks.0.token_mixer.1.context') == 'stage4_block1_mixer2'
    assert name_place('stage1_block12') == 'stage 1, block 12'
    assert number('head', torch.zeros(3, 1, 1)) == ('head 1', 'head 2', 'head 3')


def test_strides_are_of_the_module_that_holds_the_name():
    backbone = nn.Module()
    backbone.feature_info = [dict(module=f'layers.{i}', reduction=i) for i in (1, 2, 12)]
    assert stride_of(backbone, 'layers.1.attn') == 1
    assert stride_of(backbone, 'layers.12.attn') == stride_of(backbone, 'layers.12') == 12


def test_heads_are_neighbouring_channels():
    tokens = torch.arange(12.0).view(1, 2, 6)
    assert split_heads(tokens, 3).tolist() == [
        [[0, 1], [6, 7]],
        [[2, 3], [8, 9]],
        [[4, 5], [10, 11]],
    ]
