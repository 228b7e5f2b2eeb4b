"""From where a loop goes on, for every kind of sampler, and what it leaves alone."""

from itertools import islice
from types import SimpleNamespace
from unittest import mock

import mmdet.datasets.samplers  # noqa: F401
import mmpretrain.datasets.samplers  # noqa: F401
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import DefaultSampler, InfiniteSampler, pseudo_collate
from mmengine.runner import IterBasedTrainLoop
from torch.utils.data import BatchSampler, DataLoader
from toy_run import Samples, check_equal, make_config, outcome, run

from mmdense.engine import loops, training
from mmdense.engine.loops import SeededBatches, seed_loader, skip_samples

IN_BATCHES = dict(batch_sampler=dict(type='mmdet.AspectRatioBatchSampler'))
LOADERS = {
    'default': dict(),
    'drop_last': dict(drop_last=True),
    'not_persistent': dict(num_workers=1, persistent_workers=False),
    'sliced': dict(num_batch_per_epoch=4),
    'infinite': dict(sampler=dict(type='InfiniteSampler')),
    'aspect_ratio': IN_BATCHES,
    'aspect_ratio_infinite': dict(sampler=dict(type='InfiniteSampler'), **IN_BATCHES),
    'class_aware': dict(sampler=dict(type='mmdet.ClassAwareSampler')),
    'repeat_aug': dict(sampler=dict(type='mmpretrain.RepeatAugSampler')),
    'sequential': dict(sampler=dict(type='mmpretrain.SequentialSampler')),
}


def configure(folder, by_epoch, name):
    cfg = make_config(folder, by_epoch)
    loader = LOADERS[name]
    cfg.train_dataloader.pop('sampler')
    cfg.train_dataloader.update({'sampler': dict(type='DefaultSampler', shuffle=True), **loader})
    return cfg


@pytest.mark.parametrize(
    'by_epoch, name',
    [(True, name) for name in LOADERS if 'infinite' not in name]
    + [(False, name) for name in LOADERS if name not in ('not_persistent', 'drop_last')],
)
def test_every_sampler_goes_on(by_epoch, name, tmp_path):
    """The same indices as mmengine's own loop, and after a cut the rest of them."""
    cfg = configure(tmp_path, by_epoch, name)
    whole = run(cfg)
    wanted = outcome(whole)
    at = 2 * whole.iter // 3 + 1
    run(cfg, cut=dict(at=at))
    check_equal(outcome(run(cfg, resume=tmp_path / 'cut.pth')), wanted)


@pytest.mark.parametrize('shuffle', [True, False])
@pytest.mark.parametrize('rank, world_size', [(0, 1), (1, 3)])
@pytest.mark.parametrize('samples', [0, 1, 4, 7, 50])
def test_infinite_sampler_jumps_in_its_own_order(samples, rank, world_size, shuffle):
    sampler = 'mmengine.dataset.sampler.get_dist_info'
    with mock.patch(sampler, return_value=(rank, world_size)):
        wanted = InfiniteSampler(range(7), shuffle, seed=5)
        found = InfiniteSampler(range(7), shuffle, seed=5)
    skip_samples(found, samples)
    assert list(islice(found, 20)) == list(islice(wanted, samples, samples + 20))


@pytest.mark.parametrize('number', [10, 100_000])
def test_late_iteration_costs_no_more(number, monkeypatch):
    """Nothing is loaded, and Python walks over less than one round of the data."""
    Samples.loaded, size = 0, 1000
    sampler = InfiniteSampler(Samples(size), seed=0)
    loader = DataLoader(sampler.dataset, 2, sampler=sampler, collate_fn=pseudo_collate)
    batches = seed_loader(loader, seed=0)
    steps = mock.Mock(side_effect=batches._next)
    monkeypatch.setattr(batches, '_next', steps)
    permutations = mock.Mock(side_effect=torch.randperm)
    monkeypatch.setattr(torch, 'randperm', permutations)
    iterator = loops.EndlessBatches(loader, batches)
    iterator.skip_iter(number)
    assert Samples.loaded == 0 and not steps.called
    next(iterator)
    assert steps.call_count == 1 and Samples.loaded < 20
    assert permutations.call_count == number * 2 // size + 1


def draw_places(world_size, per_process, passes=1):
    """The place and index of every sample that the processes draw."""
    found = []
    for rank in range(world_size):
        with (
            mock.patch('mmengine.dataset.sampler.get_dist_info', return_value=(rank, world_size)),
            mock.patch('mmdense.engine.loops.get_dist_info', return_value=(rank, world_size)),
        ):
            sampler = DefaultSampler(range(12), seed=1)
            batches = SeededBatches(BatchSampler(sampler, per_process, False), True, seed=4)
        found += [draw for batch in batches for draw in batch]
    return sorted((draw.key[-1], draw.index) for draw in found)


def test_number_of_processes_does_not_matter():
    alone = draw_places(1, 4)
    assert [place for place, _ in alone] == list(range(12))
    assert draw_places(2, 2) == draw_places(3, 1) == alone


def test_passes_and_places_differ():
    sampler = DefaultSampler(range(5), seed=1)
    batches = SeededBatches(BatchSampler(sampler, 2, False), True, seed=4)
    keys = []
    for number in range(3):
        batches.begin_pass(number)
        keys += [draw.key for batch in batches for draw in batch]
    assert sampler.epoch == 2 and len(set(keys)) == 15


def test_finite_sampler_starts_over(tmp_path):
    """17 samples are six batches: the second pass has another order and other augmentation."""
    runner = run(configure(tmp_path, False, 'default'))
    seen = runner.model.data_preprocessor.seen
    first, second = torch.cat(seen[:6]), torch.cat(seen[6:12])
    assert len(seen) == 24 and len(first) == len(second) == 17
    assert not set(first[:, 0].tolist()) & set(second[:, 0].tolist())


def test_ready_built_loader_is_left_alone(tmp_path):
    cfg = make_config(tmp_path)
    dataset = Samples()
    loader = DataLoader(dataset, 3, collate_fn=pseudo_collate)
    runner = mock.Mock(seed=0)
    for kind, length in ((loops.EpochBasedTrainLoop, 2), (loops.IterBasedTrainLoop, 9)):
        loop = kind(runner, loader, length)
        assert loop.dataloader is loader and loop.batches is None and loop.batch_size == 3
    assert type(dataset) is Samples and type(loader.batch_sampler) is BatchSampler
    assert loader.generator is None and cfg
    assert type(loop.dataloader_iterator).__module__ == IterBasedTrainLoop.__module__


@pytest.mark.parametrize('dataset', [[1, 2, 3, 4], ('a', 'b')])
def test_plain_sequences_need_nothing(dataset):
    loader = DataLoader(dataset, 2)
    assert seed_loader(loader, 0) is None and len(list(loader)) == len(dataset) // 2


def test_loader_without_batches():
    dataset = Samples(5)
    loader = DataLoader(dataset, batch_size=None, sampler=DefaultSampler(dataset, seed=0))
    batches = seed_loader(loader, 0)
    wanted = [sample['inputs'] for sample in loader]
    batches.skip(3)
    rest = [sample['inputs'] for sample in loader]
    assert len(wanted) == 5 and all(map(torch.equal, rest, wanted[3:])) and len(rest) == 2


@pytest.mark.slow
def test_workers_that_are_spawned():
    dataset = Samples(4)
    seen = []
    for options in (dict(), dict(num_workers=1, multiprocessing_context='spawn')):
        sampler = DefaultSampler(dataset, seed=0)
        loader = DataLoader(dataset, 2, sampler=sampler, collate_fn=pseudo_collate, **options)
        seed_loader(loader, 0)
        seen.append([torch.stack(batch['inputs']) for batch in loader])
    assert len(seen[0]) == 2 and all(map(torch.equal, *seen))


def test_nothing_is_drawn_from_the_generators_of_training():
    dataset = Samples()
    loader = DataLoader(dataset, 2, sampler=DefaultSampler(dataset, seed=0), collate_fn=list)
    seed_loader(loader, 0)
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    'given, wanted',
    [
        (dict(by_epoch=True, max_epochs=1), 'mmdense.EpochBasedTrainLoop'),
        (dict(by_epoch=False, max_iters=1), 'mmdense.IterBasedTrainLoop'),
        (dict(type='IterBasedTrainLoop'), 'mmdense.IterBasedTrainLoop'),
        (dict(type='mmengine.EpochBasedTrainLoop'), 'mmdense.EpochBasedTrainLoop'),
        (dict(type='mmdense.EpochBasedTrainLoop'), 'mmdense.EpochBasedTrainLoop'),
        (dict(type='theirs.MyLoop'), 'theirs.MyLoop'),
    ],
)
def test_loops_of_a_config(given, wanted):
    stopping = ConfigDict(type='EarlyStoppingHook', monitor='x')
    cfg = Config(dict(train_cfg=given, custom_hooks=[stopping]))
    training.set_resumable(cfg)
    assert cfg.train_cfg.type == wanted and 'by_epoch' not in cfg.train_cfg
    assert cfg.custom_hooks[0].priority == 'LOW'
    assert 'mmdense.ResumeStateHook' in [hook.type for hook in cfg.custom_hooks]


class LoopOfThem:
    """Instead of mmengine's loop, which a runner builds."""

    def __init__(self, runner: SimpleNamespace, dataloader: dict) -> None:
        self.dataloader = DataLoader(Samples(), batch_size=2)


@pytest.mark.parametrize('own', [False, True])
@pytest.mark.parametrize('rank', [0, 2])
def test_samples_have_one_seed_in_all_processes(own, rank, monkeypatch):
    """Also where each process has a seed of its own, which mmengine counts up by its rank."""

    class Loop(loops._ResumableLoop, LoopOfThem):
        pass

    monkeypatch.setattr(loops, 'get_dist_info', lambda: (rank, 4))
    randomness = dict(seed=7, diff_rank_seed=own)
    runner = SimpleNamespace(_randomness_cfg=randomness, seed=7 + rank if own else 7)
    assert Loop(runner, {}).batches.seed == 7


@pytest.mark.parametrize(
    'wrapper, added',
    [
        (None, False),
        (dict(type='MMDistributedDataParallel'), False),
        (dict(type='mmdense.FullyShardedModel'), True),
    ],
)
def test_shares_get_their_hook(wrapper, added):
    cfg = Config(dict(train_cfg=dict(by_epoch=True, max_epochs=1), model_wrapper_cfg=wrapper))
    training.set_resumable(cfg)
    assert ('mmdense.ShardedCheckpointHook' in [hook.type for hook in cfg.custom_hooks]) == added
