"""What a checkpoint must hold beside mmengine's own for a run to go on as if it had not stopped."""

from __future__ import annotations

import torch
from mmengine.dist import all_gather, all_gather_object, get_dist_info
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ..registry import HOOKS
from .loops import EpochBasedTrainLoop, _ResumableLoop
from .saving import INTERRUPTED
from .seeding import get_rng_state, set_rng_state

KEY = 'mmdense'


@HOOKS.register_module()
class ResumeStateHook(Hook):
    """Keeps in each checkpoint, and puts back, what decides how the training goes on.

    That is ``checkpoint['mmdense']``, plain data and tensors: the generators of all processes, the
    place in the data, the gradients of an accumulation that is not complete, buffers (of plain
    batch norm) that are not alike in all processes, the counters of early stopping, and whether the
    evaluation due at that iteration is done. Comes after all other hooks. Evaluations leave the
    generators as they were.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.states: list[dict] = []  # of all processes, for the checkpoint being written
        self.gradients: list[dict[str, Tensor]] = []
        self.buffers: list[dict[str, Tensor]] = []
        self.before_evaluation: dict | None = None
        self.is_cut = False  # whether a signal asks for the checkpoint, maybe within an evaluation
        self.resumed: dict = {}
        self.resumed_rng: dict | None = None

    def before_run(self, runner: Runner) -> None:
        """Let every process give its state: mmengine then goes on in the first one alone."""
        if not isinstance(runner.train_loop, _ResumableLoop) or 'save_checkpoint' in vars(runner):
            return
        save = runner.save_checkpoint

        def save_all(*args, **kwargs) -> None:
            runner.call_hook('gather_checkpoint')  # of hooks that hold a part in each process
            self.is_cut = INTERRUPTED in args
            if kwargs.get('save_optimizer', True):
                self.states = all_gather_object(self.before_evaluation or _get_state())
                self.gradients = gather_gradients(_unwrap(runner.model))
                self.buffers = gather_buffers(_get_buffers(runner))
            save(*args, **kwargs)

        runner.save_checkpoint = save_all

    def before_val(self, runner: Runner) -> None:
        self.before_evaluation = _get_state()

    def after_val(self, runner: Runner) -> None:
        _set_state(self.before_evaluation)
        self.before_evaluation = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the state to a checkpoint that training can be resumed from."""
        loop, meta = runner.train_loop, checkpoint['meta']
        if 'optimizer' not in checkpoint or not isinstance(loop, _ResumableLoop):
            return
        checkpoint[KEY] = dict(
            rng=self.states,
            world_size=len(self.states),
            batch_size=loop.batch_size,
            iters_per_epoch=len(loop.dataloader),
            samples=(meta['iter'] - loop.began) * loop.batch_size,  # of this pass
            evaluated=self.before_evaluation is not None and not self.is_cut,
            stop_training=loop.stop_training,
            early_stopping=[
                [hook.wait_count, float(hook.best_score)] for hook in _stoppers(runner)
            ],
        )
        for name, parts in (('gradients', self.gradients), ('buffers', self.buffers)):
            if any(parts):
                checkpoint[KEY][name] = parts

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Tell the loop where it goes on: after as many samples, if a step now takes others."""
        loop = runner._train_loop
        if not runner._resume or not isinstance(loop, _ResumableLoop) or KEY not in checkpoint:
            return
        saved, meta = checkpoint.pop(KEY), checkpoint['meta']
        self.resumed = saved
        done = saved['samples'] // loop.batch_size  # batches of this pass
        now = dict(
            world_size=get_dist_info()[1],
            batch_size=loop.batch_size,
            iters_per_epoch=len(loop.dataloader),
        )
        if any(saved[key] != value for key, value in now.items()):
            is_by_epoch = isinstance(loop, EpochBasedTrainLoop)
            if is_by_epoch and meta['iter']:
                before = meta['iter']
                meta['iter'] = meta['epoch'] * now['iters_per_epoch'] + done
                rescale_schedules(runner, checkpoint, meta['iter'] / before)
            runner.logger.warning(
                f'The checkpoint was written by {saved["world_size"]} process(es) that took '
                f'{saved["batch_size"]} samples a step; now {now["world_size"]} take(s) '
                f'{now["batch_size"]}. Training goes on after {done * loop.batch_size} of the '
                f'{saved["samples"]} samples of this pass that are done, with the same '
                'augmentation of each; dropout, the mean over a batch and '
                + (
                    'the learning rate of a step are'
                    if is_by_epoch
                    else 'the schedule per sample are'
                )
                + ' not what they would have been.'
            )
        loop.began = meta['iter'] - done
        loop.evaluated = saved['evaluated']
        loop.stop_training = saved['stop_training']
        for hook, counters in zip(_stoppers(runner), saved['early_stopping']):
            hook.wait_count, hook.best_score = counters

    def before_train(self, runner: Runner) -> None:
        """Put generators and gradients back, when nothing draws any more but training."""
        saved, self.resumed = self.resumed, {}
        rank, world_size = get_dist_info()
        if rank < len(saved.get('rng', ())):
            self.resumed_rng = saved['rng'][rank]
            _set_state(self.resumed_rng)
        if saved.get('world_size') != world_size:
            return
        if 'buffers' in saved:
            buffers = _get_buffers(runner)
            for name, buffer in saved['buffers'][rank].items():
                buffers[name].copy_(buffer)
        if 'gradients' in saved:
            parameters = dict(_unwrap(runner.model).named_parameters())
            for name, gradient in saved['gradients'][rank].items():
                parameters[name].grad = gradient.to(parameters[name].device, copy=True)
            runner.logger.info('The gradients of the open accumulation are those of the checkpoint')

    def before_train_epoch(self, runner: Runner) -> None:
        """Within an epoch, what other hooks drew before it was drawn when it began."""
        if self.resumed_rng is not None and runner.iter > runner.train_loop.began:
            _set_state(self.resumed_rng)
        self.resumed_rng = None


def gather_gradients(model: nn.Module) -> list[dict[str, Tensor]]:
    """The gradients that wait for more, of each process, by parameter; on the CPU."""
    own = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    names = all_gather_object(list(own))
    gathered = [{} for _ in names]
    for key, parameter in model.named_parameters():
        if any(key in each for each in names):
            parts = all_gather(own.get(key, torch.zeros_like(parameter)))
            for each, known, part in zip(gathered, names, parts):
                if key in known:
                    each[key] = part.cpu()
    return gathered


def gather_buffers(own: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Of each process, the buffers that are not as in the first; on the CPU."""
    if get_dist_info()[1] == 1:
        return []
    gathered = all_gather_object({name: buffer.cpu() for name, buffer in own.items()})
    return [
        {name: part for name, part in each.items() if not torch.equal(part, gathered[0][name])}
        for each in gathered
    ]


def rescale_schedules(runner: Runner, checkpoint: dict, factor: float) -> None:
    """Let schedules in epochs that count iterations go on at the same part of an epoch.

    ``factor`` is new iterations per old one; all but the count and the values is the new run's.
    """
    schedulers, saved = runner.param_schedulers, checkpoint.get('param_schedulers')
    groups = schedulers if isinstance(schedulers, dict) else {'': schedulers or []}
    for name, group in groups.items():
        for scheduler, state in zip(group, (saved[name] if name else saved) or []):
            if not scheduler.by_epoch and scheduler.end != state['end']:
                kept = {k: state[k] for k in ('base_values', '_last_value') if k in state}
                counts = {k: round(state[k] * factor) for k in ('last_step', '_global_step')}
                state.update({**scheduler.state_dict(), **kept, **counts})


def _get_state() -> dict[str, object]:
    state = get_rng_state()
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def _set_state(state: dict[str, object]) -> None:
    set_rng_state(state)
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def _get_buffers(runner: Runner) -> dict[str, Tensor]:
    averages = [hook.ema_model for hook in runner.hooks if hasattr(hook, 'ema_model')]
    return {
        f'{number}.{name}': buffer
        for number, model in enumerate([_unwrap(runner.model), *averages])
        for name, buffer in model.named_buffers()
    }


def _unwrap(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _stoppers(runner: Runner) -> list[EarlyStoppingHook]:
    return [hook for hook in runner.hooks if isinstance(hook, EarlyStoppingHook)]
