"""PaCa-ViT's position tables at other sizes, and its teacher with padded images."""

import pytest
import torch
from helpers import build

from mmdense.backbones.layers import to_tokens
from mmdense.backbones.paca import Downsample, Stage


def ramp(height: int, width: int, down: float, across: float) -> torch.Tensor:
    """(H, W): from 0 at the upper left corner to ``down`` and ``across`` at the others."""
    y = torch.linspace(0, down, height)[:, None]
    return y + torch.linspace(0, across, width)


def make_stage(height: int, width: int) -> Stage:
    """A stage without blocks whose table is two ramps."""
    stage = Stage(Downsample(3, 2), [], 2, (height, width))
    stage.norm = torch.nn.Identity()
    table = torch.stack([ramp(height, width, 1, 10), ramp(height, width, -3, 2)])
    stage.pos_embed.data = to_tokens(table[None])
    return stage


@pytest.mark.parametrize('size', [(4, 6), (7, 16), (2, 3), (8, 5)])
def test_position_table_is_resampled_corner_to_corner(size):
    """A ramp stays a ramp between the same corners, at any size."""
    stage = make_stage(4, 6)
    tokens = torch.zeros(1, size[0] * size[1], 2)
    with torch.no_grad():
        out = stage(tokens, size, None, None, None, False)[0]
    torch.testing.assert_close(out, torch.stack([ramp(*size, 1, 10), ramp(*size, -3, 2)]))


def test_position_table_between_its_entries():
    """(0, 1, 0) at five positions: bilinear, so no overshoot and no step."""
    stage = Stage(Downsample(3, 1), [], 1, (1, 3))
    stage.pos_embed.data = torch.tensor([0.0, 1, 0])[None, :, None]
    assert stage.get_pos_embed((1, 5)).flatten().tolist() == [0, 0.5, 1, 0.5, 0]
    assert stage.get_pos_embed((1, 3)) is stage.pos_embed


def test_tables_have_the_size_of_the_image():
    """(height, width) over the stage's stride, in this order."""
    model = build('PaCaViT', pos_embed=True, img_size=(64, 160))
    assert [stage.pos_embed_size for stage in model.stages] == [(16, 40), (8, 20), (4, 10), (2, 5)]
    assert [stage.pos_embed.shape[1] for stage in model.stages] == [640, 160, 40, 10]
    square = build('PaCaViT', pos_embed=True, img_size=96)
    assert square.stages[3].pos_embed_size == (3, 3)


def test_teacher_gives_padding_no_weight():
    """In every stage, with the rest still a distribution; and all of it without the option."""
    image = torch.randn(2, 3, 64, 96)
    image[0, :, 32:] = 0
    image[1, :, :, 32:] = 0
    valid = (image != 0).any(dim=1)
    for masked in (True, False):
        model = build('PaCaViT-teacher', mask_padding=masked).eval()
        seen = {}
        for i, stage in enumerate(model.stages):
            stage.blocks[0].attn.register_forward_hook(
                lambda module, args, out, i=i, seen=seen: seen.update({i: args[2]})
            )
        with torch.no_grad():
            model(image)
        assert len(seen) == 4
        for i, assignment in seen.items():
            stride = 4 * 2**i
            padded = ~valid[:, ::stride, ::stride].flatten(1)[:, None].expand_as(assignment)
            assert assignment.sum(dim=2).allclose(torch.ones(2, 9))
            assert (assignment[~padded] > 0).all()
            assert (assignment[padded] == 0).all() == masked
