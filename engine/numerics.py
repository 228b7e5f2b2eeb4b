"""Numbers gone wrong: training ends, or skips a step, before they reach the weights."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator

import torch
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    get_comm_device,
    get_rank,
    is_distributed,
)
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..errors import UserError
from ..registry import HOOKS
from .saving import find_last_checkpoint

REMEDY = (
    'try a lower learning rate, a longer warm-up, optim_wrapper.clip_grad or float32 (without '
    '--amp), and look at those pictures'
)
MAX_NAMES = 8  # of pictures in a message
MAX_WINDOW = 256  # iterations whose losses and pictures are kept until the weights move


@HOOKS.register_module()
class FiniteHook(Hook):
    """Stops training before a loss or gradient that is NaN or infinite reaches the weights.

    Looks once for each step of an optimizer, after the backward pass of all its accumulated
    iterations and before gradients are clipped, at the total losses and at the gradients' norm.
    Between processes the verdict is shared, so all of them end or skip together. Infinite gradients
    under a loss scale are the scaler's business, which skips the step and lowers the scale.

    The total losses are what ``parse_losses`` of the model returns; of a model without that method
    the gradients alone are looked at.

    Args:
        max_skips: How many bad steps are left out in the whole training, resumed or not, before it
            ends; each is logged, and statistics that its forward passes left in buffers are undone.
        max_overflows: How many steps on end a loss scaler may skip before training ends.
    """

    def __init__(self, max_skips: int = 0, max_overflows: int = 200) -> None:
        self.max_skips = max_skips
        self.max_overflows = max_overflows
        self.window: deque[tuple[str, dict[str, Tensor]]] = deque(maxlen=MAX_WINDOW)
        self.pictures = ''
        self.overflows = 0
        self.buffers: list[tuple[Tensor, Tensor]] = []

    def before_train(self, runner: Runner) -> None:
        """Stand between the losses and the optimizers."""
        self.model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.window.clear()
        if hasattr(self.model, 'parse_losses'):
            vars(self.model).pop('parse_losses', None)  # of a training that was stopped
            self.model.parse_losses = self._keep_losses(self.model.parse_losses)
        wrapper = runner.optim_wrapper
        for one in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
            vars(one).pop('step', None)
            one.step = self._guard(runner, one)

    def after_train(self, runner: Runner) -> None:
        """Give losses and optimizers back."""
        vars(self.model).pop('parse_losses', None)
        wrapper = runner.optim_wrapper
        for one in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
            vars(one).pop('step', None)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Remember the pictures, and what a skipped step must not change."""
        self.pictures = name_pictures(data_batch)
        if self.max_skips and not self.window:
            self.buffers = [(b, b.clone()) for b in self.model.buffers() if b.is_floating_point()]

    def _keep_losses(self, parse: Callable) -> Callable:
        def parse_losses(losses: dict) -> tuple[Tensor, dict[str, Tensor]]:
            total, log_vars = parse(losses)
            values = {name: torch.as_tensor(value).detach() for name, value in log_vars.items()}
            self.window.append((self.pictures, dict(values, loss=total.detach())))
            return total, log_vars

        return parse_losses

    def _guard(self, runner: Runner, wrapper: OptimWrapper) -> Callable:
        step = wrapper.step

        def guarded_step(**kwargs: object) -> None:
            losses_ok, gradients_ok = self._are_finite(wrapper)
            scaler = getattr(wrapper, 'loss_scaler', None)
            scaled = scaler is not None and scaler.is_enabled()
            if scaled:
                self.overflows = 0 if gradients_ok else self.overflows + 1
            stuck = scaled and self.overflows >= self.max_overflows
            if losses_ok and (gradients_ok or scaled) and not stuck:
                self.window.clear()
                step(**kwargs)
                return
            problem = self._describe(runner, wrapper, stuck)
            self.window.clear()
            self._skip_or_stop(runner, problem, may_skip=not stuck)

        return guarded_step

    def _are_finite(self, wrapper: OptimWrapper) -> tuple[bool, bool]:
        """Whether all losses and all gradients of a step are, in every process."""
        norm = _total_norm(wrapper, 2.0)
        good = [losses['loss'].isfinite().all().to(norm.device) for _, losses in self.window]
        losses_ok = torch.stack(good).all() if good else torch.ones_like(norm, dtype=bool)
        bad = ~torch.stack([losses_ok, norm.isfinite()])
        if is_distributed():
            bad = bad.to(get_comm_device(), torch.uint8)
            all_reduce(bad, 'max')
        losses_bad, gradients_bad = bad.tolist()
        if gradients_bad:  # or is it the squares that overflow? the largest tells, but takes longer
            gradients_bad = not _total_norm(wrapper, math.inf).isfinite()
        return not losses_bad, not gradients_bad

    def _describe(self, runner: Runner, wrapper: OptimWrapper, stuck: bool) -> str:
        """What is wrong in all processes, with what it went wrong on."""
        bad = [entry for entry in self.window if not entry[1]['loss'].isfinite().all()]
        pictures, losses = bad[0] if bad else self.window[-1] if self.window else ('', {})
        values = ', '.join(f'{name} {value.item():.4g}' for name, value in losses.items())
        own = (bool(bad), values, pictures)
        every: list = all_gather_object(own) if is_distributed() else [own]
        is_bad, values, pictures = max(every, key=lambda one: one[0])
        names = {id(p): name for name, p in self.model.named_parameters()}
        broken = [
            names.get(id(p), 'a parameter')
            for p in _parameters(wrapper)
            if not getattr(p.grad, 'to_local', lambda p=p: p.grad)().isfinite().all()
        ]
        at = f'iteration {runner.iter + 1}'
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            at += f' (epoch {runner.epoch + 1})'
        if stuck:
            problem = f'{self.overflows} steps on end had infinite gradients and were skipped'
        else:
            problem = 'the loss is not finite' if is_bad else 'a gradient is not finite'
        parts = [f'{at}: {problem}']
        if broken:
            parts.append(f'gradients of {len(broken)} parameters are not, first {broken[0]}')
        parts.append(f'losses: {values or "unknown"}')
        rates = [float(group['lr']) for group in wrapper.optimizer.param_groups]
        parts.append(
            'learning rate ' + ' to '.join(f'{r:.4g}' for r in sorted({min(rates), max(rates)}))
        )
        if pictures:
            parts.append(f'pictures: {pictures}')
        return '; '.join(parts)

    def _skip_or_stop(self, runner: Runner, problem: str, may_skip: bool) -> None:
        hub = runner.message_hub
        skipped = hub.get_info('skipped_steps', 0) + 1
        if may_skip and skipped <= self.max_skips:
            hub.update_info('skipped_steps', skipped)
            for buffer, before in self.buffers:
                buffer.copy_(before)
            runner.logger.warning(f'step skipped ({skipped} of {self.max_skips}): {problem}')
            return
        if get_rank() != 0:  # the first process speaks for all, before a launcher ends it with us
            time.sleep(1)
            raise SystemExit(1)
        if may_skip and self.max_skips:
            problem += f'; {self.max_skips} steps were skipped before'
        kept = find_last_checkpoint(runner.work_dir)
        kept = f'the last checkpoint is {kept}' if kept else 'there is no checkpoint yet'
        raise UserError(f'{problem}. The weights were left as they are, {kept}; {REMEDY}')


def name_pictures(batch: object) -> str:
    """The pictures of a batch: their paths, or their numbers where a pipeline keeps no path."""
    samples = list(_samples(batch))
    keys = ('img_path', 'img_id', 'sample_idx')
    names = [next((str(s.get(k)) for k in keys if s.get(k) is not None), '?') for s in samples]
    more = [f'and {len(names) - MAX_NAMES} more'] if len(names) > MAX_NAMES else []
    return ', '.join([*names[:MAX_NAMES], *more])


def _samples(node: object) -> Iterator[BaseDataElement]:
    if isinstance(node, BaseDataElement):
        yield node
    elif isinstance(node, dict):
        for child in node.values():
            yield from _samples(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from _samples(child)


def _parameters(wrapper: OptimWrapper) -> list[nn.Parameter]:
    groups = wrapper.optimizer.param_groups
    return [p for group in groups for p in group['params'] if p.grad is not None]


def _total_norm(wrapper: OptimWrapper, kind: float) -> Tensor:
    norm = torch.nn.utils.get_total_norm([p.grad for p in _parameters(wrapper)], norm_type=kind)
    return getattr(norm, 'full_tensor', lambda: norm)()  # FSDP holds shares of it
