"""Set-up of every test: the package, two threads, the golden data, the tools."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import mmdense  # mends the stack before any mm* import of a test

GOLDEN = Path(__file__).parent / 'golden'
TOOLS = Path(mmdense.__file__).parent / 'tools'
sys.path.insert(0, str(GOLDEN))
torch.set_num_threads(2)


class Golden:
    """Reference numbers of one published variant (tests/golden/README.md)."""

    def __init__(self, name: str) -> None:
        self.manifest = json.loads((GOLDEN / 'manifest' / f'{name}.json').read_text())
        self.vectors = dict(np.load(GOLDEN / 'vectors' / f'{name}.npz'))

    def state(self, dtype: torch.dtype, shapes: dict | None = None) -> dict[str, torch.Tensor]:
        """The original's state dict; ``shapes`` replaces some of its shapes."""
        state = {}
        for key, shape, kind in self.manifest['state']:
            weight = self.weight(key, (shapes or {}).get(key, shape), kind)
            state[key] = weight.to(dtype) if weight.is_floating_point() else weight
        return state

    @staticmethod
    def weight(key: str, shape: list[int], kind: str) -> torch.Tensor:
        from weight_rule import make_weight

        return torch.from_numpy(make_weight(key, shape, kind))

    @staticmethod
    def image(spec: dict, dtype: torch.dtype) -> torch.Tensor:
        from weight_rule import make_input

        batch, channels, height, width = spec['shape']
        image = make_input(spec['seed'], batch, height, width, channels)
        return torch.from_numpy(image).to(dtype)

    @staticmethod
    def label(spec: dict) -> torch.Tensor:
        from weight_rule import make_label

        args = (spec['num_classes'], spec['ignore_index'], spec['ignore_fraction'])
        return torch.from_numpy(make_label(spec['seed'], *spec['shape'], *args))


@pytest.fixture(scope='session')
def golden():
    return Golden


@pytest.fixture
def run_tool(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs a script of tools/ in this process: exit code, what it printed, what it complained."""

    def run(name: str, *args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        code = 0
        try:
            runpy.run_path(str(TOOLS / name), run_name='__main__')
        except SystemExit as error:  # Python prints a text and exits with 1
            code, text = (1, f'{error}\n') if isinstance(error.code, str) else (error.code, '')
            print(text, end='', file=sys.stderr)
        return code, *capsys.readouterr()

    return run
