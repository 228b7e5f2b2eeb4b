"""The backbones, registered in ``mmdense.registry.MODELS`` by class and in timm by variant."""

from . import timm_models
from .fcvit import FCViT
from .groupmixformer import GroupMixFormer
from .msf import MSFViT
from .paca import PaCaViT

__all__ = ['FCViT', 'GroupMixFormer', 'MSFViT', 'PaCaViT', 'timm_models']
