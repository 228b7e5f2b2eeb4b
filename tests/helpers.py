"""What several tests share."""

from collections.abc import Callable

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmdense.families import FAMILIES

# The families' small networks, by name: what MODELS.build takes.
TINY = {
    name: dict(type=family.type, drop_path_rate=0.0, **options)
    for family in FAMILIES
    for name, options in family.tiny.items()
}


def build(name: str, **kwargs: object) -> nn.Module:
    """A network of ``TINY``, with options that replace its own; always the same weights."""
    torch.manual_seed(0)
    model = MODELS.build({**TINY[name], **kwargs})
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
