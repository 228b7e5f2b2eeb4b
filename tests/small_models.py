"""PaCa-ViT's configs with networks that take no time."""

from pathlib import Path

import torch
from mmengine.config import Config

from mmdense.engine.building import build_model

PACA = dict(embed_dims=[16, 24, 32, 40], num_heads=[2] * 4, depths=[0, 1, 0, 0], mlp_ratios=[2] * 4)
CHANNELS = PACA['embed_dims']
CHANGES = {  # config and what makes it small
    'paca_t_in1k': dict(head=dict(num_classes=7, in_channels=40)),
    'upernet_paca_t_160k': dict(
        decode_head=dict(num_classes=7, channels=16, in_channels=CHANNELS),
        auxiliary_head=dict(num_classes=7, in_channels=32),
    ),
    'sem_fpn_paca_s_40k': dict(neck=dict(in_channels=CHANNELS), decode_head=dict(num_classes=7)),
    'paca_head_paca_t_160k': dict(
        decode_head=dict(num_classes=7, channels=16, in_channels=CHANNELS)
    ),
    'mask_rcnn_paca_t_1x': dict(neck=dict(in_channels=CHANNELS)),
    'mask2former_paca_s_160k': dict(
        decode_head=dict(
            in_channels=CHANNELS,
            num_queries=20,
            pixel_decoder=dict(encoder=dict(num_layers=1)),
            transformer_decoder=dict(num_layers=3),
        )
    ),
}


def write_small(name: str, folder: Path) -> tuple[str, str]:
    """Write a config of a small variant, and a checkpoint of its weights; their paths."""
    config, checkpoint = folder / f'{name}.py', folder / f'{name}.pth'
    changes = dict(CHANGES[name], backbone=dict(arch=dict(PACA, _delete_=True), init_cfg=None))
    config.write_text(f"_base_ = 'mmdense::paca/{name}.py'\nmodel = {changes!r}\n")
    torch.manual_seed(0)
    torch.save(build_model(Config.fromfile(config)).state_dict(), checkpoint)
    return str(config), str(checkpoint)
