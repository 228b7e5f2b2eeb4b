"""Set-up of every test: the package, two threads, the golden data."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mmdense  # noqa: F401  (mends the stack before any mm* import of a test)

GOLDEN = Path(__file__).parent / 'golden'
sys.path.insert(0, str(GOLDEN))
torch.set_num_threads(2)


class Golden:
    """Reference numbers of one published variant (tests/golden/README.md)."""

    def __init__(self, name: str) -> None:
        self.manifest = json.loads((GOLDEN / 'manifest' / f'{name}.json').read_text())
        self.vectors = dict(np.load(GOLDEN / 'vectors' / f'{name}.npz'))

    def state(self, dtype: torch.dtype, shapes: dict | None = None) -> dict[str, torch.Tensor]:
        """The original's state dict; ``shapes`` replaces some of its shapes."""
        from weight_rule import make_weight

        state = {}
        for key, shape, kind in self.manifest['state']:
            weight = torch.from_numpy(make_weight(key, (shapes or {}).get(key, shape), kind))
            state[key] = weight.to(dtype) if weight.is_floating_point() else weight
        return state

    @staticmethod
    def image(spec: dict, dtype: torch.dtype) -> torch.Tensor:
        from weight_rule import make_input

        return torch.from_numpy(make_input(spec['seed'], *_batch_and_size(spec['shape']))).to(dtype)


def _batch_and_size(shape: list[int]) -> tuple[int, int, int]:
    return shape[0], shape[2], shape[3]


@pytest.fixture(scope='session')
def golden():
    return Golden
