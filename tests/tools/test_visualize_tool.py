"""tools/visualize.py: pages for a picture and a model of any task."""

import cv2
import pytest
import torch
from helpers import DIGIT_CONFIGS, SMALLEST_PACA, check_fails
from mmengine.config import Config

from mmdense.engine import building


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
    """What pictures, configs and checkpoints can be, see test_predict_tool.py."""
    args = (DIGIT_CONFIGS['mmdet'], untrained('mmdet'), pictures / image, *more)
    check_fails(run_tool('visualize.py', *args), message)
