"""What several tests share."""

from collections.abc import Callable

import pytest
import torch


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
