"""Mixed precision, also where mmengine's own wrapper refuses: on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from ..registry import OPTIM_WRAPPERS

DTYPES = {'fp32': None, 'bf16': torch.bfloat16, 'fp16': torch.float16}  # of autocast, by the tools


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Trains under bfloat16 autocast on the CPU; bfloat16 has float32's range, so no loss scale."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield
