"""A training that is cut and resumed ends with the numbers of one that was not."""

import random
from functools import cache
from pathlib import Path

import pytest
import torch
from helpers import DIGIT_CONFIGS, load_digits
from processes import fork_ranks, wait
from toy_run import Net, check_equal, make_config, outcome, resume_and_compare, run

from mmdense.serialization.checkpoint import load_file


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The outcome of an uninterrupted run without workers, by loop."""

    @cache
    def get(by_epoch):
        return outcome(run(make_config(tmp_path_factory.mktemp('whole'), by_epoch)))

    return get


def check_resumes(cfg, wanted, **cut):
    """Cut as told and resumed, the run ends as wanted."""
    run(cfg, cut=cut)
    resumed = run(cfg, resume=Path(cfg.work_dir, 'cut.pth'))
    check_equal(outcome(resumed), wanted)
    return resumed


@pytest.mark.parametrize('workers', [0, 2, 4])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_equal_at_any_iteration(by_epoch, workers, whole, tmp_path):
    cfg = make_config(tmp_path, by_epoch, workers)
    if workers:
        check_equal(outcome(run(cfg)), whole(by_epoch))
    cuts = random.Random(f'{by_epoch} {workers}').sample(range(1, 25), 1 if workers else 3)
    for at in sorted(cuts):
        check_resumes(cfg, whole(by_epoch), at=at)


@pytest.mark.parametrize(
    'by_epoch, stage, at',
    [
        (True, 'after_train_epoch', 6),
        (True, 'after_train_epoch', 12),  # where an evaluation is due
        (True, 'after_train_epoch', 24),  # and at the end
        (True, 'after_val_epoch', 12),  # where it is done
        (True, 'after_val_epoch', 24),
        (True, 'after_train_iter', 12),  # before the epoch is counted
        (True, 'after_train_iter', 24),
        (False, 'after_train_iter', 10),
        (False, 'after_val_epoch', 10),
        (False, 'after_train_iter', 24),
    ],
)
def test_equal_around_evaluations(by_epoch, stage, at, whole, tmp_path):
    check_resumes(make_config(tmp_path, by_epoch), whole(by_epoch), at=at, stage=stage)


def test_equal_after_several_cuts_with_other_workers(whole, tmp_path):
    cut = tmp_path / 'cut.pth'
    run(make_config(tmp_path, workers=2), cut=dict(at=3))
    run(make_config(tmp_path, workers=0), cut=dict(at=8), resume=cut)
    run(make_config(tmp_path, workers=4), cut=dict(at=21), resume=cut)
    check_equal(outcome(run(make_config(tmp_path), resume=cut)), whole(True))


def test_early_stopping_counts_on(tmp_path):
    """No evaluation is better than the first by so much: the run ends after the fourth."""
    hook = dict(type='EarlyStoppingHook', monitor='error', rule='less', min_delta=9, patience=3)
    cfg = make_config(tmp_path, by_epoch=False, custom_hooks=[hook])
    wanted = run(cfg)
    assert wanted.iter == 20
    wanted = outcome(wanted)
    for cut in (dict(at=11), dict(at=10, stage='after_val_epoch'), dict(at=12)):
        assert check_resumes(cfg, wanted, **cut).iter == 20
    check_resumes(cfg, wanted, at=20, stage='after_val_epoch')  # stopped, and stays so


def test_state_is_plain_and_only_resuming_takes_it(tmp_path):
    cfg = make_config(tmp_path)
    run(cfg, cut=dict(at=7))
    saved = load_file(tmp_path / 'cut.pth')['mmdense']
    torch.save(saved, tmp_path / 'state.pth')
    assert torch.load(tmp_path / 'state.pth', weights_only=True).keys() == saved.keys()
    assert saved['world_size'] == len(saved['rng']) == 1 and not saved['evaluated']
    assert saved['batch_size'] == 3 and saved['iters_per_epoch'] == 6 and saved['samples'] == 3
    assert list(saved['gradients'][0]) == [k for k, _ in Net().named_parameters()]

    cfg.load_from = str(tmp_path / 'cut.pth')
    assert run(cfg, cut=dict(at=2)).iter == 1  # starts at 0

    cfg.load_from, cfg.optim_wrapper.accumulative_counts = None, 1
    run(cfg, cut=dict(at=7))
    assert 'gradients' not in load_file(tmp_path / 'cut.pth')['mmdense']


def test_best_checkpoints_hold_no_state(tmp_path):
    cfg = make_config(tmp_path, by_epoch=False)
    cfg.default_hooks.checkpoint.update(save_best='error', rule='less', interval=8, by_epoch=False)
    run(cfg)
    (best,) = tmp_path.glob('best_*.pth')
    assert 'mmdense' not in load_file(best) and 'mmdense' in load_file(tmp_path / 'iter_24.pth')


@pytest.mark.parametrize('by_epoch, at', [(True, 8), (False, 4)])
def test_other_batch_size_goes_on_at_the_sample(by_epoch, at, tmp_path):
    """Two batches of 3 of an epoch are one of 6; a run that counts iterations goes on counting."""
    cfg = make_config(tmp_path, by_epoch)
    wanted = run(cfg).model.data_preprocessor.seen[at:]
    run(cfg, cut=dict(at=at))
    cfg.train_dataloader.batch_size = 6
    runner = run(cfg, resume=tmp_path / 'cut.pth')
    seen = runner.model.data_preprocessor.seen
    assert torch.equal(torch.cat(seen[:2])[:11], torch.cat(wanted[:4])[:11])
    if by_epoch:  # 17 samples are three batches
        assert (runner.iter, len(seen)) == (12, 12 - 3 - 1)
        warm_up, cosine, steps = runner.param_schedulers
        assert (warm_up.end, cosine.end) == (5, 12)
        assert (warm_up.last_step, cosine.last_step, steps.last_step) == (4, 11, 3)
    else:
        assert (runner.iter, len(seen)) == (24, 20)


@pytest.mark.slow
def test_two_processes(tmp_path):
    """Cut and resumed by as many they end equal; one alone goes on at the same sample."""
    pids = fork_ranks(tmp_path, resume_and_compare, tmp_path, dict(at=5))
    for rank, pid in enumerate(pids):
        assert wait(pid, 120) == 0, (tmp_path / f'log{rank}').read_text()[-2000:]

    saved = load_file(tmp_path / 'cut' / 'cut.pth')['mmdense']
    assert saved['world_size'] == len(saved['gradients']) == 2 and saved['samples'] == 12
    one, other = (torch.load(tmp_path / f'seen_{rank}.pth')[5] for rank in range(2))
    alone = run(make_config(tmp_path / 'cut'), resume=tmp_path / 'cut' / 'cut.pth')
    first, second = alone.model.data_preprocessor.seen[:2]
    assert torch.equal(first, torch.stack([one[0], other[0], one[1]]))
    assert torch.equal(second, torch.stack([other[1], one[2]]))
    assert alone.iter == 24


@pytest.mark.slow
@pytest.mark.parametrize('scope', DIGIT_CONFIGS)
def test_digits_end_equal(scope, place):
    """A classifier with mixup, a detector, a segmentor: cut in an epoch, also with workers."""
    cfg = load_digits(scope, place / 'run')
    wanted = outcome(run(cfg))
    cfg.train_dataloader.num_workers = 2
    check_resumes(cfg, wanted, at=4)
