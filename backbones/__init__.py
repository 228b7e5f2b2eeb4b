"""The backbones, registered in ``mmdense.registry.MODELS`` under their class names."""

from .paca import PaCaViT

__all__ = ['PaCaViT']
