"""Set-up of every test: the package, threads, the golden data, digit scenes, the tools."""

import contextlib
import functools
import gc
import importlib.util
import io
import json
import os
import random
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

# Two workers share two cores; what they start inherits this.
THREADS = 1 if 'PYTEST_XDIST_WORKER' in os.environ else 2
os.environ['OMP_NUM_THREADS'] = str(THREADS)
os.environ['MMDENSE_OFFLINE'] = '1'  # no test waits for, or hangs on, what lies elsewhere

import mmdense  # noqa: E402  (mends the stack before any mm* import of a test)

GOLDEN = Path(__file__).parent / 'golden'
TOOLS = Path(mmdense.__file__).parent / 'tools'

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from helpers import (  # noqa: E402
    DIGIT_CONFIGS,
    DIGIT_SIZES,
    draw_no_numbers_of_meta,
    remember_what_is_slow,
)
from mmengine.config import Config  # noqa: E402
from processes import forget_runs  # noqa: E402

from mmdense.data.digit_scenes import generate  # noqa: E402
from mmdense.engine.building import build_model  # noqa: E402

sys.path.insert(0, str(GOLDEN))
torch.set_num_threads(THREADS)
# Or a fork has no gradients, if its parent met a fake CUDA device (torch.export) before its first.
torch.ones(1, requires_grad=True).sum().backward()
remember_what_is_slow()
draw_no_numbers_of_meta()


def pytest_collection_finish() -> None:
    """What is imported by now stays: mmengine looks for garbage whenever it makes a data set."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def alone() -> None:
    """No test depends on those before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    forget_runs()


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
def golden() -> type[Golden]:
    return Golden


# The smallest variant of each family that was published; names of the golden data.
SMALLEST = {
    'paca': 'pacavit_tiny_p2cconv_100_0',
    'groupmixformer': 'groupmixformer_miny',
    'fcvit': 'fcvit_tiny',
    'msf': 'SimpleViTS_msf-g2',
}


@pytest.fixture(scope='session')
def smallest() -> Callable[[str], tuple[Golden, dict[str, torch.Tensor]]]:
    """By family: the reference of its smallest variant and the published state dict."""

    @functools.cache
    def load(family: str) -> tuple[Golden, dict[str, torch.Tensor]]:
        ref = Golden(SMALLEST[family])
        return ref, ref.state(torch.float32)

    return lambda family: (load(family)[0], dict(load(family)[1]))


@pytest.fixture(scope='session')
def run_tool() -> Callable[..., tuple[int, str, str]]:
    """Runs a script of tools/ in this process: exit code, what it printed, what it complained."""

    def run(name: str, *args: object) -> tuple[int, str, str]:
        forget_runs()
        code, out, err = 0, io.StringIO(), io.StringIO()
        with (
            mock.patch.object(sys, 'argv', [name, *map(str, args)]),
            mock.patch.dict(os.environ),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                runpy.run_path(str(TOOLS / name), run_name='__main__')
            except SystemExit as error:  # Python prints a text and exits with 1
                code, text = (1, f'{error}\n') if isinstance(error.code, str) else (error.code, '')
                err.write(text)
        return code, out.getvalue(), err.getvalue()

    return run


@pytest.fixture(scope='session')
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digit scenes, a few, where the configs of the demo look for them from this folder."""
    folder = tmp_path_factory.mktemp('digits')
    generate(folder / 'data' / 'digit_scenes', DIGIT_SIZES, seed=0)
    return folder


@pytest.fixture
def place(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own folder, with digit scenes of its own; it runs in there."""
    shutil.copytree(digits / 'data', tmp_path / 'data')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pictures(digits: Path, tmp_path: Path) -> Path:
    """A folder with six scenes in two folders below it."""
    for path in (digits / 'data' / 'digit_scenes' / 'images').glob('*/00000[0-2].png'):
        target = tmp_path / 'pictures' / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    return tmp_path / 'pictures'


@pytest.fixture(scope='session')
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """By toolbox: a checkpoint of the demo's model with random weights."""

    @functools.cache
    def save(scope: str) -> Path:
        torch.manual_seed(0)
        model = build_model(Config.fromfile(DIGIT_CONFIGS[scope]))
        model.backbone.init_weights()
        path = tmp_path_factory.mktemp('untrained') / f'{scope}.pth'
        torch.save(dict(state_dict=model.state_dict()), path)
        return path

    return save


@pytest.fixture
def gradio() -> None:
    spec = importlib.util.find_spec('gradio')
    if spec is None or spec.origin is None:  # a folder of that name beside the checkout has none
        pytest.skip('Gradio is not installed')
