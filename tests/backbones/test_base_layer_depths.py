"""Which layer a parameter learns with, by hand."""

import pytest
from helpers import build

# 0 makes the tokens, then the blocks from 1; the last number is the rest's, beside the heads'.
DEPTHS = {
    'PaCaViT': {  # 1, 2, 3, 1 blocks
        'stages.0.downsample.proj.0.weight': 0,
        'stages.0.downsample.norm.bias': 0,
        'stages.0.blocks.0.mlp.fc1.weight': 1,
        'stages.0.norm.weight': 1,
        'stages.1.downsample.proj.0.weight': 2,
        'stages.1.blocks.0.attn.q.weight': 2,
        'stages.1.blocks.1.attn.q.weight': 3,
        'stages.1.norm.weight': 3,
        'stages.2.downsample.norm.weight': 4,
        'stages.2.blocks.1.norm1.weight': 5,
        'stages.2.blocks.2.norm1.weight': 6,
        'stages.2.norm.bias': 6,
        'stages.3.downsample.proj.0.bias': 7,
        'stages.3.blocks.0.norm1.weight': 7,
        'stages.3.norm.weight': 7,
        'rest': 8,
    },
    'PaCaViT-options': {
        'stages.0.pos_embed': 1,
        'stages.1.pos_embed': 2,
        'stages.2.pos_embed': 4,
        'stages.3.pos_embed': 7,
        'rest': 8,
    },
    'PaCaViT-teacher': {  # each learns with the first block of its stage
        'teacher.blocks.0.0.depthwise.0.weight': 1,
        'teacher.blocks.2.1.pointwise.0.weight': 4,
        'teacher.blocks.3.0.depthwise.0.weight': 7,
        'teacher.downsamples.1.1.weight': 2,
        'teacher.laterals.2.0.weight': 4,
        'teacher.fpns.0.depthwise.0.weight': 1,
        'teacher.assigns.3.weight': 7,
        'stages.2.blocks.0.attn.q.weight': 4,
        'rest': 8,
    },
    'GroupMixFormer': {  # 1, 2, 1, 1 blocks; the stem makes the tokens, all convolutions are later
        'stem.0.weight': 0,
        'stem.4.bias': 0,
        'stages.0.downsample.0.0.weight': 1,
        'stages.0.blocks.0.cpe.weight': 1,
        'stages.1.downsample.1.weight': 2,
        'stages.1.blocks.1.attn.qkv.weight': 3,
        'stages.2.downsample.0.1.weight': 4,
        'stages.3.blocks.0.mlp.fc2.bias': 5,
        'norm.weight': 6,
        'rest': 6,
    },
    'FCViT': {  # 1, 1, 2, 1 blocks
        'stages.0.downsample.0.weight': 0,
        'stages.0.downsample.1.bias': 0,
        'stages.1.downsample.0.weight': 2,
        'stages.2.downsample.1.weight': 3,
        'stages.2.blocks.1.norm1.weight': 4,
        'stages.3.blocks.0.scale1.weight': 5,
        'norm0.weight': 6,
        'norm3.bias': 6,
        'rest': 6,
    },
    'MSFViT': {  # 4 layers
        'patch_embed.norm1.weight': 0,
        'patch_embed.proj.weight': 0,
        'layers.0.attn.qkv.weight': 1,
        'layers.2.norm2.bias': 3,
        'layers.3.mlp.fc1.weight': 4,
        'norm.weight': 5,
        'rest': 5,
    },
}
OPTIONS = {
    'GroupMixFormer': dict(final_norm=True),
    'FCViT': dict(layer_scale=0.5),
    'MSFViT': dict(out_type='avg_featmap'),
}


@pytest.mark.parametrize('name', DEPTHS)
def test_layers_by_hand(name):
    model = build(name, **OPTIONS.get(name, {}))
    names = dict(model.named_parameters())
    depths = dict(DEPTHS[name])
    number = depths.pop('rest') + 1
    for parameter, depth in depths.items():
        assert parameter in names
        assert model.get_layer_depth(parameter) == (depth, number), parameter
        found = model.get_layer_depth(f'backbone.{parameter}', prefix='backbone.')
        assert found == (depth, number), parameter


def test_heads_are_the_rest_whatever_their_parts_are_called():
    model = build('PaCaViT')
    for parameter in ('decode_head.stages.0.weight', 'stages.0.downsample.proj.0.weight'):
        assert model.get_layer_depth(parameter, prefix='backbone.') == (8, 9)
    assert model.get_layer_depth('neck.convs.0.weight', 'backbone.') == (8, 9)
