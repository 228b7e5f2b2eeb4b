"""How fast models run and how much memory they take, side by side.

Machines are shared and noisy, so the cases of one run take turns, pass by pass, and are compared by
the ratio of times that lie next to each other.
"""

from __future__ import annotations

import copy
import gc
import itertools
import os
import statistics
import timeit
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import timer
from tqdm import tqdm

from ..engine.amp import DTYPES
from ..engine.building import build_model, count_channels
from ..engine.data import find_num_classes, prepare_loading
from ..engine.toolboxes import find_toolbox

Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One way to run one model.

    Args:
        config: Its name, for the table.
        mode: 'inference', 'train': forward and backward, or 'data': loading of training batches.
        part: 'backbone', or 'model': the whole, with normalization and post-processing, or '' for
            data.
        precision: A key of :data:`mmdense.engine.amp.DTYPES`; but fp32 runs under autocast.
        memory_format: 'contiguous' or 'channels_last', of weights and image.
        execution: 'eager', or 'compiled': the backbone by torch.compile.
    """

    config: str
    mode: str
    part: str = ''
    precision: str = ''
    memory_format: str = ''
    execution: str = ''


@dataclass
class Timing:
    """What was measured of a case.

    Args:
        batch_size: Images per pass.
        seconds: Of each pass.
        peak_bytes: Most that tensors took at once during a pass, beside weights and input.
        loaded: Images that came in all those seconds, of data loading: its batches arrive in
            bursts, so that single ones say little.
    """

    batch_size: int
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    loaded: int | None = None

    @property
    def images_per_second(self) -> float:
        """At the median pass; of data loading, on average."""
        if self.loaded is not None:
            return self.loaded / sum(self.seconds)
        return self.batch_size / statistics.median(self.seconds)

    def percentile(self, percent: float) -> float:
        """Seconds that so many percent of the passes do not exceed."""
        return float(np.percentile(self.seconds, percent))

    def speed_relative_to(self, other: Timing) -> float:
        """Median over the rounds of the other's time by this one's; 2 is twice as fast."""
        if self.loaded is not None or other.loaded is not None:
            return self.images_per_second / other.images_per_second
        return statistics.median(
            theirs * self.batch_size / (ours * other.batch_size)
            for ours, theirs in zip(self.seconds, other.seconds)
        )


def prepare(
    case: Case, cfg: Config, shape: tuple[int, int], batch_size: int, device: torch.device
) -> Step:
    """One pass of a case, as a function, with random weights and images of ``shape``."""
    cfg = copy.deepcopy(cfg)
    if 'size' in (cfg.model.get('data_preprocessor') or {}):
        cfg.model.data_preprocessor.size = shape  # a segmentor's, to which training pads
    keep_all(cfg.model.get('test_cfg'))
    model = build_model(cfg, device).train(case.mode == 'train')
    channels_last = case.memory_format == 'channels_last'
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    if case.execution == 'compiled':  # dynamic: models of one class share what is compiled
        model.backbone.compile(dynamic=False)
    if case.part == 'model':
        pass_once = run_model(model, cfg, shape, batch_size)
    else:
        channels = count_channels(cfg)
        image = torch.randn(batch_size, channels, *shape, device=device)
        if channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        pass_once = partial(run_backbone, model.backbone, image)
    dtype = DTYPES[case.precision]

    def step() -> None:
        with (
            torch.autocast(device.type, dtype, enabled=dtype is not None),
            torch.set_grad_enabled(case.mode == 'train'),
        ):
            loss = pass_once()
        if case.mode == 'train':
            loss.backward()
            model.zero_grad()

    return step


def keep_all(node: object) -> None:
    """Let no score below a detector's ``test_cfg`` be too low.

    With random weights of a softmax all are, and neither suppression nor the mask head would run.
    """
    if isinstance(node, dict):
        if 'score_thr' in node:
            node['score_thr'] = 0.0
        for child in node.values():
            keep_all(child)


def run_backbone(backbone: nn.Module, image: Tensor) -> Tensor:
    """The backbone on a normalized batch (B, C, H, W): a number that depends on all its maps."""
    return sum(feature.float().mean() for feature in backbone(image))


def run_model(
    model: nn.Module, cfg: Config, shape: tuple[int, int], batch_size: int
) -> Callable[[], object]:
    """The whole model: in eval mode its predictions, in training its loss on made-up labels."""
    samples = [make_sample(cfg, shape, model.training) for _ in range(batch_size)]
    channels = count_channels(cfg)
    images = [torch.randint(0, 256, (channels, *shape), dtype=torch.uint8) for _ in samples]

    def pass_once() -> object:
        if not model.training:
            return model.test_step(dict(inputs=images, data_samples=samples))
        batch = dict(inputs=images, data_samples=[sample.clone() for sample in samples])
        data = model.data_preprocessor(batch, training=True)
        return model.parse_losses(model(**data, mode='loss'))[0]

    return pass_once


def make_sample(cfg: Config, shape: tuple[int, int], labelled: bool) -> BaseDataElement:
    """The toolbox's data sample of an image of ``shape``, on demand with made-up labels."""
    toolbox = find_toolbox(cfg)
    metainfo = dict(
        img_shape=shape, ori_shape=shape, pad_shape=shape, scale_factor=(1.0, 1.0), img_id=0
    )
    sample = toolbox.sample(metainfo=metainfo)
    if labelled:
        toolbox.label(sample, shape, find_num_classes(cfg.model))
    return sample


def measure_peak(step: Step, device: torch.device) -> int:
    """Bytes that tensors take at most during a pass, beyond what they took before it."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == '[memory]']
    events.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in events), default=0)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what PyTorch's profiler writes to standard error at every start and stop."""
    kept = os.dup(2)
    with open(os.devnull, 'wb') as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def measure(
    steps: list[Step], batch_size: int, device: torch.device, warmup: int, rounds: int
) -> Iterator[list[Timing]]:
    """Warm every step up, take its memory, then time all of them in turn, round by round.

    The clock is PyTorch's, which waits for the GPU. PyTorch's own ``Timer`` does not serve: it runs
    a step twice before every pass that it times.

    Yields:
        The timings so far, in the order of ``steps``: once per pass, for a progress bar.
    """
    if device.type == 'cuda' and device.index is not None:
        torch.cuda.set_device(device)  # the one that the clock waits for
    timings = [Timing(batch_size) for _ in steps]
    clocks = [timeit.Timer(step, 'gc.enable()', timer, dict(gc=gc)) for step in steps]
    # Beyond a number of models of one class, PyTorch would run the others eagerly.
    limit = dict(recompile_limit=8 + len(steps), fail_on_recompile_limit_hit=True)
    with torch._dynamo.config.patch(limit):
        for step, timing in zip(steps, timings):
            for _ in range(warmup):
                step()
                yield timings
            timing.peak_bytes = measure_peak(step, device)
            yield timings
        for _ in range(rounds):
            for clock, timing in zip(clocks, timings):
                timing.seconds.append(clock.timeit(number=1))
                yield timings


def measure_loading(cfg: Config, warmup: int, rounds: int) -> Iterator[list[Timing]]:
    """Time the batches of the config's training data, as :func:`measure` does passes.

    A data set that ends before is begun again.
    """
    prepare_loading(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        loader = Runner.build_dataloader(cfg.train_dataloader)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    timing = Timing(cfg.train_dataloader.batch_size, loaded=0)
    for i in range(warmup + rounds):
        start = timeit.default_timer()
        batch = next(batches)
        if i >= warmup:
            timing.seconds.append(timeit.default_timer() - start)
            timing.loaded += len(batch['inputs'])
        yield [timing]


def measure_all(
    cases: list[Case],
    configs: dict[str, tuple[Config, tuple[int, int]]],
    batch_size: int,
    device: torch.device,
    warmup: int,
    rounds: int,
) -> dict[Case, Timing]:
    """Measure cases behind a progress bar: models in turn, then data sets one by one.

    Args:
        cases: What to measure.
        configs: The configs of the cases with their image sizes, by name.
        batch_size: Images per pass of a model.
        device: Where models run.
        warmup: Passes, or batches, before.
        rounds: Passes, or batches, that are timed.
    """
    models = [case for case in cases if case.mode != 'data']
    timings = {}
    steps = [
        prepare(case, *configs[case.config], batch_size, device)
        for case in tqdm(models, 'models', disable=None)
    ]
    if steps:
        passes = measure(steps, batch_size, device, warmup, rounds)
        timings = dict(zip(models, _last(passes, len(steps) * (warmup + 1 + rounds), 'passes')))
    for case in cases:
        if case.mode == 'data':
            batches = measure_loading(configs[case.config][0], warmup, rounds)
            (timings[case],) = _last(batches, warmup + rounds, 'batches')
    return {case: timings[case] for case in cases}


def _last(measuring: Iterator[list[Timing]], total: int, unit: str) -> list[Timing]:
    return deque(tqdm(measuring, unit, total, disable=None), maxlen=1).pop()
