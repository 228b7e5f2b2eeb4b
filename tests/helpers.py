"""What several tests share."""

from collections.abc import Callable

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

DIMS = (16, 24, 32, 40)
PACA = dict(
    type='PaCaViT',
    arch=dict(
        embed_dims=DIMS, num_heads=(2, 2, 4, 4), depths=(1, 2, 3, 1), mlp_ratios=(4, 4, 2, 2)
    ),
    clusters=(9, 9, 9, 0),
    drop_path_rate=0.0,
)
MSF = dict(
    type='MSFViT',
    arch=dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64),
    out_indices=(0, 1, 2, 3),
)
TINY = {
    'PaCaViT': PACA,
    'PaCaViT-teacher': dict(
        PACA, arch=dict(PACA['arch'], teacher_depths=(1, 1, 2, 1)), clusters=(9, 9, 9, 9)
    ),
    'PaCaViT-options': dict(
        PACA,
        clustering='mlp',
        clustering_interval=2,
        cluster_pos_embed=True,
        sub_ln=True,
        layer_scale=0.5,
        pos_embed=True,
        img_size=64,
        mask_padding=True,
    ),
    'GroupMixFormer': dict(
        type='GroupMixFormer',
        arch=dict(embed_dims=(40, 40, 80, 80), depths=(1, 2, 1, 1), mlp_ratios=(4, 4, 2, 2)),
        drop_path_rate=0.0,
    ),
    'FCViT': dict(
        type='FCViT',
        arch=dict(embed_dims=DIMS, depths=(1, 1, 2, 1), mlp_ratios=(4, 4, 2, 2)),
        layer_scale=0.5,
        drop_path_rate=0.0,
    ),
    'FCViT-options': dict(
        type='FCViT',
        arch=dict(embed_dims=DIMS, depths=(1, 1, 2, 1), mlp_ratios=(4, 4, 2, 2)),
        compete=False,
        spatial_attention=True,
        channel_attention=True,
        layer_scale=None,
        drop_path_rate=0.0,
    ),
    'MSFViT': MSF,
    'MSFViT-groups': dict(MSF, groups=2),
    'MSFViT-orig': dict(MSF, attention='orig'),
}


def build(name: str, **kwargs: object) -> nn.Module:
    """A network of ``TINY``, with options that replace its own; always the same weights."""
    cfg = {**TINY[name], **kwargs}
    torch.manual_seed(0)
    model = MODELS.build({**cfg, 'type': f'mmdense.{cfg["type"]}'})
    model.init_weights()
    return model


def check_gradients(
    loss: Callable[[], torch.Tensor], tensors: dict[str, torch.Tensor], step: float = 1e-6
) -> None:
    """Analytic gradients equal central differences, along a random direction of each tensor."""
    grads = torch.autograd.grad(loss(), list(tensors.values()))
    with torch.no_grad():
        for (key, t), grad in zip(tensors.items(), grads):
            direction = torch.randn_like(t)
            values = []
            for sign in (1, -2, 1):  # forward, back past the start, and home
                t += sign * step * direction
                values.append(loss().item())
            numeric = (values[0] - values[1]) / (2 * step)
            analytic = (grad * direction).sum().item()
            assert numeric == pytest.approx(analytic, rel=1e-4, abs=1e-5), key
