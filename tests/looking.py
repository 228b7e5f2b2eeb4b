"""Views of a small network's picture, for the tests of what the families show."""

import torch
from helpers import build
from torch import Tensor, nn

from mmdense.inference.visualize import look, watching

IMAGE = torch.randn(1, 3, 96, 160, generator=torch.Generator().manual_seed(0))
QUERY = (100, 50)


def see(name: str, kind: str, **kwargs: object) -> tuple[nn.Module, dict]:
    """The backbone, and its views of a kind by place."""
    model = build(name, **kwargs).eval()
    views = look(model, lambda: model(IMAGE), QUERY, (kind,))[kind]
    return model, {view.name: view for view in views}


def record(model: nn.Module, pattern: str) -> dict:
    """The calls of the modules of such names."""
    with watching(model, pattern) as calls, torch.no_grad():
        model(IMAGE)
    return calls


def attend(view_maps: Tensor, v: Tensor) -> Tensor:
    """Maps (h, H, W) and values (h, N, d) -> what the query receives (h, d)."""
    return torch.einsum('hn,hnd->hd', view_maps.flatten(1), v)
