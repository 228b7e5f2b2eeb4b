"""A sample's randomness is a function of its key, and leaves everything else as it was."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset
from toy_run import Noise, Samples

from mmdense.engine.seeding import Draw, get_rng_state, seed_samples, seeded, set_rng_state


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_keys_decide_and_nothing_else_notices():
    state = get_rng_state()
    with seeded(1, 2, 3):
        first = draw()
    undisturbed = draw()
    set_rng_state(state)
    assert draw() == undisturbed
    with seeded(1, 2, 3):
        assert draw() == first
    for key in ((1, 2, 4), (1, 3, 3), (2, 2, 3), (1, 2, 3, 1), (3, 2, 1)):
        with seeded(*key):
            assert not set(draw()) & set(first), key


def test_generators_come_back_after_an_error():
    before = get_rng_state()
    with pytest.raises(KeyError), seeded(0):
        draw()
        raise KeyError
    after = get_rng_state()
    assert torch.equal(before['torch'], after['torch']) and before['python'] == after['python']
    assert torch.equal(before['numpy'][1], after['numpy'][1])


@pytest.mark.parametrize(
    'make',
    [
        Samples,
        lambda: ConcatDataset([Samples(3), Samples(4)]),
        lambda: RepeatDataset(Samples(3), 2),
        lambda: torch.utils.data.Subset(Samples(), [3, 1, 2]),  # loads whole batches
    ],
    ids=['own', 'concat', 'repeat', 'subset'],
)
def test_data_set_stays_what_it_is(make):
    plain = make()
    dataset = seed_samples(make())
    assert isinstance(dataset, type(plain)) and type(dataset).__name__ == type(plain).__name__
    assert seed_samples(dataset) is dataset and len(dataset) == len(plain)
    assert vars(dataset).keys() == vars(plain).keys()
    key = (5, 0, 7)
    with seeded(*key):
        wanted = plain[1]['inputs']
    for each in (dataset, copy.deepcopy(dataset), copy.copy(dataset), pickle_round(dataset)):
        assert type(each) is type(dataset)
        draw()
        assert torch.equal(each[Draw(1, key)]['inputs'], wanted)
        assert not torch.equal(each[Draw(1, (5, 0, 8))]['inputs'], wanted)
        _, last = each.__getitems__([Draw(0, (5, 0, 8)), Draw(1, key)])
        assert torch.equal(last['inputs'], wanted)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    found = dataset[1]['inputs']
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert torch.equal(plain[1]['inputs'], found)  # an index alone is as ever


def pickle_round(dataset):
    return pickle.loads(pickle.dumps(dataset))


def test_pipeline_can_be_switched():
    """As hooks do, on the data set itself."""
    dataset = seed_samples(Samples())
    dataset.pipeline = lambda results: results['sample_idx']
    assert dataset[Draw(3, (0, 0, 0))] == 3
    assert isinstance(Samples().pipeline.transforms[0], Noise)
