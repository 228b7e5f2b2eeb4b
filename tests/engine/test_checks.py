"""What must hold before a run starts."""

from pathlib import Path

import pytest
import torch
from helpers import CONFIGS
from mmengine.config import Config

from mmdense.engine.checks import check_channels, check_data, check_processes, outline_model
from mmdense.errors import UserError


def test_data_checks_name_file_and_loader(tmp_path):
    dataset = dict(type='CocoDataset', data_root=str(tmp_path), ann_file='train.json')
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    with pytest.raises(UserError, match=r"train_dataloader: file '.*/train.json' does not exist"):
        check_data(cfg, ('train_dataloader',))
    (tmp_path / 'train.json').write_text('{}')
    check_data(cfg, ('train_dataloader', 'val_dataloader'))


def test_a_bare_assertion_of_a_constructor_says_where_it_stands():
    model = dict(type='FPN', in_channels=(8, 8), out_channels=8, num_outs=2)
    with pytest.raises(UserError, match=r'isinstance\(in_channels, list\).*fpn.py'):
        outline_model(Config(dict(model=model, default_scope='mmdet')))


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '8')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(UserError, match=r'8 processes .* 2 GPU'):
        check_processes()
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    check_processes()


class TestChannels:
    """A neck or head that does not fit its backbone is named with both sides' channels."""

    def check(self, path: str | Path, **changes: object) -> None:
        cfg = Config.fromfile(CONFIGS / Path(path).with_suffix('.py'))
        cfg.merge_from_dict(changes)
        model = outline_model(cfg)
        model.backbone(torch.empty(1, 3, 64, 64, device='meta'))  # or there would be no verdict
        check_channels(cfg, model)

    @pytest.mark.parametrize(
        'path',
        [
            'paca/mask_rcnn_paca_s_1x',
            'paca/upernet_paca_b_160k',
            'fcvit/fcvit_b12_in1k',
            'msf/msf_s_in1k',
            'msf/mask_rcnn_msf_s_1x',
            'msf/paca_head_msf_s_160k',
            'groupmixformer/retinanet_groupmixformer_s_1x',
            'fcvit/mask2former_fcvit_b12_160k',
        ],
    )
    def test_published_configs_fit(self, path):
        self.check(path)

    @pytest.mark.parametrize(
        'path, change, message',
        [
            (
                'paca/mask_rcnn_paca_s_1x',
                {'model.backbone.arch': 'base'},
                r'neck takes \[96, 192, 320, 384\] channels, but the backbone gives '
                r'\[96, 192, 384, 512\]',
            ),
            (
                'paca/upernet_paca_b_160k',
                {'model.auxiliary_head.in_channels': 320},
                r'auxiliary_head takes \[320\] channels, but the backbone gives \[384\]',
            ),
            (
                'groupmixformer/groupmixformer_s_in1k',
                {'model.head.in_channels': 384},
                r'head takes \[384\] channels, but the backbone gives \[320\]',
            ),
            (
                'fcvit/paca_head_fcvit_b12_160k',
                {'model.backbone.out_indices': (0, 1, 2)},
                r'decode_head uses maps \[0, 1, 2, 3\] of a backbone that gives 3',
            ),
            (
                'msf/upernet_msf_s_160k',
                {'model.neck.embed_dim': 768},
                r'neck takes \[768, 768, 768, 768\] channels',
            ),
        ],
    )
    def test_mismatch(self, path, change, message):
        with pytest.raises(UserError, match=message):
            self.check(path, **change)

    def test_backbones_of_the_toolboxes_too(self, tmp_path):
        (tmp_path / 'mine.py').write_text(
            "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n"
            'model = dict(neck=dict(in_channels=[1, 2, 3, 4]))\n'
        )
        with pytest.raises(UserError, match=r'the backbone gives \[256, 512, 1024, 2048\]'):
            self.check(tmp_path / 'mine.py')
