"""Mixed precision, also where mmengine's own wrapper refuses: on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from ..registry import OPTIM_WRAPPERS

DTYPES = {'fp32': None, 'bf16': torch.bfloat16, 'fp16': torch.float16}  # of autocast, by the tools
EMULATING = ('AVX2', 'NO AVX')  # PyTorch's words for CPUs without products of half the bits


def warn_of_emulation(device: str) -> None:
    """Say on stderr where half the bits take more time than float32, not less.

    Args:
        device: The type of the device that a model is on.
    """
    if device == 'cpu' and torch.backends.cpu.get_cpu_capability() in EMULATING:
        print(
            'warning: this CPU has no products of half the bits; they take ten times as long as '
            "float32's or more",
            file=sys.stderr,
            flush=True,
        )


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Trains under bfloat16 autocast on the CPU; bfloat16 has float32's range, so no loss scale."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield
