"""The heads, registered in ``mmdense.registry.MODELS`` under their class names."""

from .paca_head import PaCaSegHead

__all__ = ['PaCaSegHead']
