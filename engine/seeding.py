"""What a sample draws at random depends on the run's seed, the pass and its place in it alone.

Neither the number of workers, nor what was drawn before, nor a restart in between changes it, and
drawing leaves the generators of the process as they were.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset


class Draw(NamedTuple):
    """An index on its way from the sampler to the data set."""

    index: object
    key: tuple[int, ...]  # seed, pass, place in it


def get_rng_state() -> dict[str, object]:
    """The generators of Python, numpy and torch on the CPU, as plain data and tensors."""
    name, keys, *rest = np.random.get_state()
    return dict(
        python=random.getstate(),
        numpy=(name, torch.from_numpy(keys.astype(np.int64)), *rest),
        torch=torch.get_rng_state(),
    )


def set_rng_state(state: dict[str, object]) -> None:
    """Put back what :func:`get_rng_state` took."""
    name, keys, *rest = state['numpy']
    random.setstate(state['python'])
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'].cpu())


@contextmanager
def keeping_generators() -> Iterator[None]:
    """After the block the three generators are as before."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def seed_generators(*key: int) -> None:
    """Let the three generators be a function of ``key``."""
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Within the block the three generators are a function of ``key``; after it, as before."""
    with keeping_generators():
        seed_generators(*key)
        yield


@cache
def _seeded_class(cls: type) -> type:
    """A subclass that loads a :class:`Draw` under its own randomness, and is else the same."""

    def getitem(self: Dataset, index: object) -> object:
        if not isinstance(index, Draw):
            return cls.__getitem__(self, index)
        with seeded(*index.key):
            return cls.__getitem__(self, index.index)

    def getitems(self: Dataset, indices: list) -> list:
        # A loader asks for a batch at once: numpy takes its time to keep a state.
        samples = []
        with keeping_generators():
            for index in indices:
                if isinstance(index, Draw):
                    seed_generators(*index.key)
                    index = index.index
                samples.append(cls.__getitem__(self, index))
        return samples

    def reduce(self: Dataset, protocol: int) -> tuple:
        plain = object.__new__(cls)  # this class exists in this process alone
        plain.__dict__.update(self.__dict__)
        return seed_samples, (plain,)

    names = dict(
        __module__=cls.__module__,
        __qualname__=cls.__qualname__,
        __doc__=cls.__doc__,
        __slots__=(),
        __getitem__=getitem,
        __getitems__=getitems,
        __reduce_ex__=reduce,
        is_seeded=True,
    )
    return type(cls)(cls.__name__, (cls,), names)


def seed_samples(dataset: Dataset) -> Dataset:
    """Let ``dataset[Draw(index, key)]`` be ``dataset[index]`` under the randomness of ``key``.

    In place, and by its class, so that whatever else is asked of the data set or set on it is as
    before: it is still an instance of its class and can be copied and sent to a worker.
    """
    if 'is_seeded' not in vars(type(dataset)):
        dataset.__class__ = _seeded_class(type(dataset))
    return dataset
