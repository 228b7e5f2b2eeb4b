"""tools/benchmark.py: a row for every combination, and bad input."""

import csv

import cv2
import pytest
from helpers import CONFIGS, DIGIT_CONFIGS, check_fails

from mmdense.data.digit_scenes import Sizes, generate


def test_configs_of_one_name(run_tool, tmp_path):
    for folder in ('a', 'b'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'x.py').write_text("_base_ = 'mmdense::digits/paca_digits.py'\n")
    args = (tmp_path / 'a' / 'x.py', tmp_path / 'b' / 'x.py', '--shape', 64, '--rounds', 1)
    code, out, err = run_tool('benchmark.py', *args, '--warmup', 1)
    assert code == 0, err
    assert 'a/x.py' in out and 'b/x.py' in out


def test_tool(run_tool, tmp_path):
    """Several models in one run: a row for each combination, a file and a plot."""
    args = [DIGIT_CONFIGS[scope] for scope in ('mmpretrain', 'mmdet')]
    args += ['--mode', 'inference', 'train', '--precision', 'fp32', 'bf16', '--shape', 64, 96]
    args += ['--rounds', 2, '--warmup', 1, '--batch-size', 2]
    files = ['--csv', tmp_path / 'out' / 'table.csv', '--plot', tmp_path / 'out' / 'bars.png']
    code, out, err = run_tool('benchmark.py', *args, *files)
    assert code == 0, err
    assert 'mask_rcnn_paca_digits train bf16' in out
    assert 'backbone, contiguous, eager, 64x96, batch of 2; cpu' in out
    with (tmp_path / 'out' / 'table.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2 and rows[0]['ratio'] == '1.0'
    for row in rows:
        assert float(row['images_per_second']) > 0 and float(row['peak_mib']) > 0
        assert float(row['p50_ms']) <= float(row['p90_ms']) <= float(row['p99_ms'])
    peaks = {row['mode']: float(row['peak_mib']) for row in rows if row['precision'] == 'fp32'}
    assert peaks['train'] > peaks['inference']
    assert cv2.imread(str(tmp_path / 'out' / 'bars.png')).std() > 10


def test_loading(run_tool, tmp_path, monkeypatch):
    sizes = Sizes(scenes=8, crops=8)
    generate(tmp_path / 'data' / 'digit_scenes', {'train': sizes, 'val': sizes}, seed=0)
    monkeypatch.chdir(tmp_path)
    # One batch is the whole data set. The second is of boxes, grouped by their images' shape.
    for scope, options in (
        ('mmseg', ()),
        (
            'mmdet',
            ('--cfg-options', 'train_dataloader.batch_sampler.type=AspectRatioBatchSampler'),
        ),
    ):
        args = (DIGIT_CONFIGS[scope], '--mode', 'data', '--rounds', 3, '--warmup', 1, *options)
        code, out, err = run_tool('benchmark.py', *args)
        assert code == 0, err
        assert 'data, batch of 8' in out
    (tmp_path / 'data/digit_scenes/images/train/000003.png').write_text('no image')
    code, _, err = run_tool('benchmark.py', DIGIT_CONFIGS['mmseg'], '--mode', 'data')
    assert code == 1 and "000003.png' cannot be read as an image" in err


@pytest.mark.parametrize(
    'args, message',
    [
        (('nothing.py',), 'does not exist'),
        ((CONFIGS / '_base_' / 'ema.py',), 'no config of a classifier'),
        ((DIGIT_CONFIGS['mmpretrain'], '--plot', 'bars.txt'), 'name a .png, .svg or .pdf file'),
        ((DIGIT_CONFIGS['mmpretrain'], '--device', 'cuda:77'), 'no device of this machine'),
        ((DIGIT_CONFIGS['mmpretrain'], '--mode', 'data'), 'does not exist'),
    ],
)
def test_bad_input(args, message, run_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_fails(run_tool('benchmark.py', *args), message)
