"""What several tests share."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.config import utils as config_utils
from mmengine.evaluator import BaseMetric
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from yapf.yapflib import yapf_api

import mmdense
from mmdense.backbones.base import BaseBackbone
from mmdense.data.digit_scenes import Sizes
from mmdense.families import FAMILIES

ROOT = Path(mmdense.__file__).parent
CONFIGS = ROOT / 'configs'
FAMILY = {family.name: family for family in FAMILIES}

# The families' small networks, by name: what MODELS.build takes.
TINY = {
    name: dict(type=family.type, drop_path_rate=0.0, **options)
    for family in FAMILIES
    for name, options in family.tiny.items()
}
# One of each family, the plainest.
PLAINEST = [next(iter(family.tiny)) for family in FAMILIES]
# Settings of a PaCa-ViT as small as can be.
SMALLEST_PACA = dict(embed_dims=[8] * 4, num_heads=[1] * 4, depths=[1] * 4, mlp_ratios=[1] * 4)

# The digit scenes of the fixture ``digits``, and the configs of the demo, by toolbox.
DIGIT_SIZES = {'train': Sizes(scenes=8, crops=20), 'val': Sizes(scenes=4, crops=30)}
DIGIT_CONFIGS = {
    'mmpretrain': CONFIGS / 'digits' / 'paca_digits.py',
    'mmdet': CONFIGS / 'digits' / 'mask_rcnn_paca_digits.py',
    'mmseg': CONFIGS / 'digits' / 'upernet_paca_digits.py',
}

FORMAT_CODE = yapf_api.FormatCode
CONV_FORWARD = nn.Conv2d._conv_forward
# Of torch.nn.init, what layers call where they are built.
INITIALIZERS = ('constant_', 'kaiming_uniform_', 'normal_', 'ones_', 'uniform_', 'zeros_')


def remember_what_is_slow() -> None:
    """Do once in this process what mmengine does again and again, with the same result each time.

    It reads all metafiles of a toolbox whenever a config inherits from it, a second each. And do
    not lay a config's text out whenever it writes it, half a second each: any layout reads back
    the same. ``FORMAT_CODE`` is what does.
    """
    config_utils.load = functools.cache(config_utils.load)
    yapf_api.FormatCode = check_code


@contextmanager
def quick_float64() -> Iterator[None]:
    """Grouped convolutions of float64 in another layout of the same numbers, where many are taken.

    PyTorch, which has no kernel for these on a CPU, computes group by group, in the layout of the
    networks here up to ten times as long as in the other.
    """

    def convolve(
        self: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        if self.groups == 1 or x.dtype != torch.float64 or x.is_contiguous():
            return CONV_FORWARD(self, x, weight, bias)
        y = CONV_FORWARD(self, x.contiguous(), weight, bias)
        return y.contiguous(memory_format=torch.channels_last)

    with mock.patch.object(nn.Conv2d, '_conv_forward', convolve):
        yield


def draw_no_numbers_of_meta() -> None:
    """Initialize no tensor on the meta device: it has no numbers, and PyTorch takes long there."""

    def skipping_meta(initialize: Callable) -> Callable:
        @functools.wraps(initialize)
        def initialize_numbers(
            tensor: torch.Tensor, *args: object, **kwargs: object
        ) -> torch.Tensor:
            return tensor if tensor.is_meta else initialize(tensor, *args, **kwargs)

        return initialize_numbers

    for name in INITIALIZERS:
        setattr(nn.init, name, skipping_meta(getattr(nn.init, name)))


def check_code(text: str, style_config: dict) -> tuple[str, bool]:
    """In place of yapf's ``FormatCode``: what is no Python fails as there, the layout stays."""
    compile(text, '<config>', 'exec')
    return text, False


def build(name: str, **kwargs: object) -> BaseBackbone:
    """A network of ``TINY``, with options that replace its own; always the same weights."""
    torch.manual_seed(0)
    model = MODELS.build({**TINY[name], **kwargs})
    model.init_weights()
    return model


def make_shallow(name: str) -> dict:
    """Options for ``build``: two blocks in the second stage, one in the last, none else. That is
    every kind of a block, what one takes over from that before it, and the maps of all four sizes.

    Of two networks side by side each stage keeps a block, which uses what the other gives; of a
    plain sequence two blocks are left. A variant that has a name stays whole.
    """
    arch = TINY[name]['arch']
    if isinstance(arch, str):
        return {}
    if 'num_layers' in arch:
        return dict(arch={**arch, 'num_layers': 2}, out_indices=(0, 1))
    keys = [key for key in arch if key.endswith('depths')]
    deepest = (0, 2, 0, 1) if len(keys) == 1 else (1, 2, 1, 1)
    return dict(arch={**arch, **{key: tuple(map(min, arch[key], deepest)) for key in keys}})


def build_in(scope: str, cfg: dict) -> nn.Module:
    """A model of a toolbox, from the ``model`` of a config, in eval mode."""
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(cfg).eval()


def load_config(name: str) -> Config:
    """A config by its path below ``configs/``, without suffix."""
    return Config.fromfile(CONFIGS / f'{name}.py')


def load_digits(scope: str, folder: Path) -> Config:
    """The demo's config of a toolbox with a tiny network, two epochs of three iterations."""
    cfg = Config.fromfile(DIGIT_CONFIGS[scope])
    cfg.launcher, cfg.work_dir, cfg.experiment_name = 'none', str(folder), folder.name
    cfg.model.backbone.pop('init_cfg', None)
    cfg.model.backbone.update(
        arch=dict(embed_dims=[8, 8, 16, 16], num_heads=[1] * 4, depths=[1] * 4, mlp_ratios=[1] * 4),
        drop_path_rate=0.3,
    )
    dims = [8, 8, 16, 16]
    if scope == 'mmpretrain':
        cfg.model.head.in_channels = dims[-1]
        mixup = dict(augments=dict(type='Mixup', alpha=0.8))
        cfg.model.train_cfg = mixup
    elif scope == 'mmdet':
        cfg.model.neck.in_channels = dims
    else:
        cfg.model.decode_head.in_channels = dims
    cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.indices = 6
    cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.val_dataloader.dataset.indices = 2
    cfg.train_cfg.update(max_epochs=2, val_interval=2)
    cfg.default_hooks.checkpoint.update(interval=-1, save_last=False)
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.1)]
    return cfg


def check_gradients(
    loss: Callable[[], torch.Tensor], tensors: dict[str, torch.Tensor], step: float = 1e-6
) -> None:
    """Analytic gradients equal central differences, along a random direction of each tensor."""
    grads = torch.autograd.grad(loss(), list(tensors.values()))
    with torch.no_grad(), quick_float64():
        for (key, t), grad in zip(tensors.items(), grads):
            direction = torch.randn_like(t)
            start, values = t.clone(), []
            for sign in (1, -1):
                t.copy_(start + sign * step * direction)
                values.append(loss().item())
            t.copy_(start)
            numeric = (values[0] - values[1]) / (2 * step)
            analytic = (grad * direction).sum().item()
            assert numeric == pytest.approx(analytic, rel=1e-4, abs=1e-5), key


def assert_same_gradients(
    found: torch.Tensor,
    expected: torch.Tensor,
    inputs: list[torch.Tensor],
    tolerance: float = 1e-12,
) -> None:
    """Two results of the same inputs have the same gradients, in a random direction."""
    direction = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(found, inputs, direction),
        torch.autograd.grad(expected, inputs, direction),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def assert_near(got: torch.Tensor, want: np.ndarray, atol: float) -> None:
    """Every number within ``atol`` of the golden data's."""
    np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=atol)


def float32_tolerance(spec: dict) -> float:
    """What float32 may differ by from the originals in float32, given how those differ."""
    return max(5e-5, 30 * spec['f32_vs_f64_max_abs'])


def check_fails(result: tuple[int, str, str], *messages: str) -> None:
    """What a tool answers to bad input: exit code 1, one line of error, which says all of this."""
    code, _, err = result
    lines = [line for line in err.splitlines() if line.startswith('error: ')]
    assert code == 1 and len(lines) == 1 and 'Traceback' not in err, err
    for message in messages:
        assert message in lines[0]


def evaluate_batches(
    metric: BaseMetric, samples: list[dict], classes: Sequence[str], batch: int
) -> dict[str, float]:
    """What a metric makes of samples that come so many at a time."""
    metric.dataset_meta = dict(classes=classes)
    for begin in range(0, len(samples), batch):
        metric.process({}, samples[begin : begin + batch])
    return metric.evaluate(len(samples))


def shorten(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
