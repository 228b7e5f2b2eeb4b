"""mmengine's training loops, which can go on from any iteration as if nothing had been.

A loop keeps ``began``, the iteration at which its pass over the data began (an iteration-based
loop has one endless pass), so that ``iter - began`` batches of the pass are done.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_dist_info
from mmengine.runner import EpochBasedTrainLoop as _EpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as _IterBasedTrainLoop
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Sampler

from ..registry import LOOPS
from .seeding import Draw, seed_samples, seeded


class SeededBatches(Sampler):
    """The batches of indices of another sampler, each index with the key of its randomness.

    Args:
        sampler: What the loader draws from: a batch sampler, or a sampler where it does not batch.
        is_batched: Which of the two.
        seed: Of the run, the same in all processes.
    """

    def __init__(self, sampler: Sampler, is_batched: bool, seed: int) -> None:
        self.batches = sampler
        self.is_batched = is_batched
        self.seed = seed
        self.rank, self.world_size = get_dist_info()
        self.number = 0  # of the pass
        self.skipped: tuple[Iterator, int, int] | None = None

    def __getattr__(self, name: str) -> object:
        if name == 'batches':  # not there yet, when this is copied
            raise AttributeError(name)
        return getattr(self.batches, name)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator:
        """The next pass, from where :meth:`skip` left it."""
        # Nothing happens before the first batch: a loader may begin twice and use the second.
        number, self.skipped, skipped = self.number, None, self.skipped
        batches, done, samples = skipped or (iter(self.batches), 0, 0)
        for place in count(done):
            batch = self._next(batches, number, place)
            if batch is None:
                return
            # Counted over all processes, so that their number does not matter.
            places = count(samples * self.world_size + self.rank, self.world_size)
            draws = [Draw(i, (self.seed, number, place)) for i, place in zip(batch, places)]
            samples += len(batch)
            yield draws if self.is_batched else draws[0]

    def begin_pass(self, number: int) -> None:
        """Let the next pass be the one of this number."""
        self.number = number
        sampler = self.sampler if self.is_batched else self.batches
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(number)

    def skip(self, batches: int) -> int:
        """Leave out the first batches of the next pass; no data are loaded.

        Returns:
            How many there were to leave out: fewer where the pass is shorter.
        """
        if type(self.batches) is BatchSampler and type(self.sampler) is InfiniteSampler:
            samples = batches * self.batches.batch_size
            skip_samples(self.sampler, samples)
            self.skipped = iter(self.batches), batches, samples
            return batches
        start, samples = iter(self.batches), 0
        self.skipped = start, batches, 0
        for done in range(batches):
            batch = self._next(start, self.number, done)
            if batch is None:
                return done
            samples += len(batch)
            self.skipped = start, done + 1, samples
        return batches

    def _next(self, batches: Iterator, number: int, done: int) -> list | None:
        """The next batch of indices; samplers may draw from the process's generators."""
        with seeded(self.seed, number, done, 1):
            batch = next(batches, None)
        return batch if self.is_batched or batch is None else [batch]


def skip_samples(sampler: InfiniteSampler, samples: int) -> None:
    """Go to a place in the sampler's own order; whole rounds of the data cost one permutation."""
    rounds, offset = divmod(sampler.rank + samples * sampler.world_size, sampler.size)
    generator = torch.Generator()
    generator.manual_seed(sampler.seed)

    def order() -> Iterator[int]:
        indices = torch.arange(sampler.size)
        for done in count():
            if sampler.shuffle:
                indices = torch.randperm(sampler.size, generator=generator)
            if done >= rounds:
                yield from indices.tolist()

    sampler.indices = islice(order(), offset, None, sampler.world_size)


def seed_loader(loader: DataLoader, seed: int) -> SeededBatches | None:
    """Let a loader's samples depend on ``seed`` and their place alone; None if it has no sampler.

    In place. The loader's samplers and data set remain what they were.
    """
    if isinstance(loader.dataset, IterableDataset | list | tuple):
        return None  # no indices, or nothing drawn at random
    is_batched = loader.batch_sampler is not None
    name = 'batch_sampler' if is_batched else 'sampler'
    batches = SeededBatches(getattr(loader, name), is_batched, seed)
    object.__setattr__(loader, name, batches)  # a loader refuses it by ``loader.name =``
    seed_samples(loader.dataset)
    # A new iterator draws a number: not from the generator of dropout.
    loader.generator = torch.Generator().manual_seed(seed)
    return batches


class _ResumableLoop:
    """What both loops share; before mmengine's class among the bases.

    Attributes:
        batches: What the loader draws from; None for a loader that was passed ready-built.
        began: The iteration at which this pass began; None until it is known.
        evaluated: Whether the evaluation due at this iteration is done.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, *args, **kwargs) -> None:
        super().__init__(runner, dataloader, *args, **kwargs)
        self.batches = self.began = None
        self.evaluated = False
        if isinstance(dataloader, dict):
            own = runner._randomness_cfg.get('diff_rank_seed', False)
            seed = runner.seed - (get_dist_info()[0] if own else 0)
            self.batches = seed_loader(self.dataloader, seed)

    @property
    def batch_size(self) -> int:
        """Samples of an iteration, of all processes together."""
        size = self.dataloader.batch_size or getattr(self.batches, 'batch_size', 1)
        return (size if isinstance(size, int) else 1) * get_dist_info()[1]

    def _evaluate_if_due(self, done: int, total: int) -> None:
        """Evaluate after ``done`` of ``total`` epochs or iterations, if the config wants it so."""
        self._decide_current_val_interval()
        if (
            self.runner.val_loop is not None
            and done >= self.val_begin
            and (done % self.val_interval == 0 or done == total)
        ):
            self.runner.val_loop.run()


@LOOPS.register_module()
class EpochBasedTrainLoop(_ResumableLoop, _EpochBasedTrainLoop):
    """mmengine's loop, which goes on within an epoch and runs an evaluation that is left to do."""

    def run(self) -> torch.nn.Module:
        """Train; a run that is resumed first does the evaluation due at its checkpoint."""
        self.runner.call_hook('before_train')
        if self.began is None:
            self.began = min(self._epoch * len(self.dataloader), self._iter)
        if self._epoch > 0 and self._iter == self.began and not self.evaluated:
            self._evaluate_if_due(self._epoch, self._max_epochs)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._evaluate_if_due(self._epoch, self._max_epochs)
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Iterate over what is left of an epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        done = self._iter - self.began
        if self.batches is not None:
            self.batches.number = self._epoch
            if done:
                self.batches.skip(done)
            batches = iter(self.dataloader)
        else:
            batches = islice(self.dataloader, done, None)
        for idx, data_batch in enumerate(batches, done):
            self.run_iter(idx, data_batch)
        self.began = self._iter
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


class EndlessBatches:
    """One pass over a loader after the other."""

    def __init__(self, loader: DataLoader, batches: SeededBatches) -> None:
        self.loader = loader
        self.batches = batches
        self.iterator: Iterator | None = None

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> object:
        if self.iterator is None:
            self.iterator = iter(self.loader)
        try:
            return next(self.iterator)
        except StopIteration:
            self.batches.begin_pass(self.batches.number + 1)
            self.iterator = iter(self.loader)
            return next(self.iterator)

    def skip_iter(self, num_iters: int) -> None:
        """Begin so many batches later."""
        length = self.batches.skip(num_iters)
        if length < num_iters:
            passes, rest = divmod(num_iters, length)
            self.batches.begin_pass(passes)
            self.batches.skip(rest)


@LOOPS.register_module()
class IterBasedTrainLoop(_ResumableLoop, _IterBasedTrainLoop):
    """mmengine's loop, which goes on at any iteration at once and evaluates what is left to."""

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, *args, **kwargs) -> None:
        super().__init__(runner, dataloader, *args, **kwargs)
        if self.batches is not None:
            self.dataloader_iterator = EndlessBatches(self.dataloader, self.batches)

    def run(self) -> torch.nn.Module:
        """Train; a run that is resumed first does the evaluation due at its checkpoint."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        if self.began is None or self.fast_forward_on_resume:
            self.began = self._iter if self.fast_forward_on_resume else 0
        if self._iter > self.began:
            self.dataloader_iterator.skip_iter(self._iter - self.began)
        if self._iter > 0 and not self.evaluated:
            self._evaluate_if_due(self._iter, self._max_iters)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._evaluate_if_due(self._iter, self._max_iters)
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model
