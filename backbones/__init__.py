"""The backbones, registered in ``mmdense.registry.MODELS`` under their class names."""

from .fcvit import FCViT
from .groupmixformer import GroupMixFormer
from .msf import MSFViT
from .paca import PaCaViT
from .timm_model import Timm

__all__ = ['FCViT', 'GroupMixFormer', 'MSFViT', 'PaCaViT', 'Timm']
