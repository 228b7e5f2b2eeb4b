"""Pages of views, drawn for a picture and a model of any task."""

import cv2
import numpy as np
import pytest
import torch
from helpers import DIGIT_CONFIGS, SMALLEST_PACA, build, check_fails
from mmengine.config import Config

from mmdense.engine import building
from mmdense.families.views import summarize
from mmdense.inference.visualize import draw_view, extent_of, look, tell_apart


@pytest.mark.parametrize(
    'kind, rows, columns', [('clusters', 2, 4), ('attention', 1, 3), ('features', 2, 4)]
)
def test_pages(kind, rows, columns, tmp_path):
    """Rows of four panels: the picture, a summary where there is one, then up to max_maps maps."""
    model = build('PaCaViT').eval()
    image = torch.randn(1, 3, 96, 160)
    view, *_ = look(model, lambda: model(image), (100, 50), (kind,))[kind]
    picture = np.random.default_rng(0).integers(0, 256, (80, 140, 3), np.uint8)
    draw_view(picture, view, tmp_path / 'page.png', max_maps=6)
    page = cv2.imread(str(tmp_path / 'page.png'))
    assert page.shape[1] == 260 * columns and page.std() > 10
    assert round(page.shape[0] / (260 * 80 / 140 + 30)) == rows
    assert [path.name for path in tmp_path.iterdir()] == ['page.png']


def test_where_maps_lie_on_a_picture():
    """Their stride; or where there is none the power of two that covers the picture."""
    picture = np.zeros((64, 100, 3))
    view = summarize('x', torch.rand(3, 5, 7), 16)
    assert extent_of(view, picture) == (0, 7 * 16, 5 * 16, 0)
    unknown = summarize('x', torch.rand(3, 16, 25), None)
    assert extent_of(unknown, picture) == (0, 100, 64, 0)
    padded = summarize('x', torch.rand(3, 10, 14), None)  # 64 / 10 lies between 4 and 8
    assert extent_of(padded, picture) == (0, 112, 80, 0)


def test_neighbours_have_colours_that_differ():
    colours = tell_apart(20)
    assert colours.shape == (20, 3)
    assert np.abs(np.diff(colours, axis=0)).max(axis=1).min() > 0.4
    assert len(np.unique(colours.round(3), axis=0)) == 20


@pytest.mark.parametrize('scope, kinds', [('mmpretrain', 1), ('mmdet', 3), ('mmseg', 3)])
def test_tool(scope, kinds, untrained, pictures, run_tool, tmp_path):
    image = pictures / 'val' / '000000.png'
    out = tmp_path / 'out'
    args = [DIGIT_CONFIGS[scope], untrained(scope), image, '--out-dir', out, '--max-maps', 2]
    args += ['--query', 0.2, 0.9, *(['--kinds', 'clusters'] if kinds == 1 else [])]
    code, printed, err = run_tool('visualize.py', *args)
    assert code == 0, err
    assert 'clusters: 3 pages' in printed
    pages = sorted(path.name for path in out.iterdir())
    assert len({page.split('_')[0] for page in pages}) == kinds
    assert 'clusters_stage3_block1.png' in pages
    assert all(cv2.imread(str(out / page)).shape[1] % 260 == 0 for page in pages)


def test_features_of_mask2former(run_tool, pictures, tmp_path):
    """Heads that have nothing to show are not run: they may want more than maps."""
    config = tmp_path / 'm2f.py'
    config.write_text(
        "_base_ = 'mmdense::paca/mask2former_paca_s_160k.py'\n"
        f'model = dict(backbone=dict(arch=dict({SMALLEST_PACA}, _delete_=True), init_cfg=None),\n'
        '             decode_head=dict(in_channels=[8] * 4))\n'
    )
    model = building.build_model(Config.fromfile(config))
    torch.save(model.state_dict(), tmp_path / 'm2f.pth')
    args = (config, tmp_path / 'm2f.pth', pictures / 'val' / '000000.png', '--kinds', 'features')
    code, out, err = run_tool('visualize.py', *args, '--out-dir', tmp_path / 'out')
    assert code == 0, err
    assert 'features: 4 pages' in out


@pytest.mark.parametrize(
    'image, more, message',
    [
        ('val', [], 'is a folder; name one picture'),
        ('val/000000.png', ['--kinds', 'similarity'], 'PaCaViT has none of these to show'),
    ],
)
def test_bad_input(image, more, message, untrained, pictures, run_tool):
    """What pictures, configs and checkpoints can be, see test_predict.py."""
    args = (DIGIT_CONFIGS['mmdet'], untrained('mmdet'), pictures / image, *more)
    check_fails(run_tool('visualize.py', *args), message)
