"""What must hold before a run starts."""

import logging
from pathlib import Path

import pytest
import torch
from helpers import CONFIGS
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmdense.engine import checks
from mmdense.engine.building import outline_model
from mmdense.engine.checks import (
    check_channels,
    check_data,
    check_model,
    check_processes,
    check_work_dir,
    warn_of_schedule,
)
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


@pytest.mark.parametrize('processes, gpus, fits', [(8, 2, False), (2, 1, False), (2, 2, True)])
def test_more_processes_than_gpus(processes, gpus, fits, monkeypatch):
    monkeypatch.setenv('LOCAL_WORLD_SIZE', str(processes))
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
    if fits:
        check_processes()
    else:
        with pytest.raises(UserError, match=rf'{processes} processes .* {gpus} GPU'):
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


@pytest.mark.parametrize(
    'environ, batch_size, pictures, iters',
    [
        ({}, 2, 20, 10),
        ({}, 2, 21, 11),
        ({'LOCAL_WORLD_SIZE': '2'}, 2, 20, 5),
        ({'LOCAL_WORLD_SIZE': '2', 'WORLD_SIZE': '5'}, 2, 20, 2),
        ({}, 2, None, None),
        ({}, None, 20, None),
    ],
)
def test_iterations_of_an_epoch(environ, batch_size, pictures, iters, monkeypatch, capsys):
    """A schedule that begins after them is told; where they are unknown, none."""
    for name in ('WORLD_SIZE', 'LOCAL_WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    for begin in (iters or 1000, (iters or 1000) - 1):
        cfg = Config(
            dict(
                train_cfg=dict(max_epochs=1),
                train_dataloader={} if batch_size is None else dict(batch_size=batch_size),
                param_scheduler=dict(type='LinearLR', by_epoch=False, begin=begin),
            )
        )
        warn_of_schedule(cfg, pictures)
        assert bool(capsys.readouterr().err) == (iters is not None and begin == iters)


@MODELS.register_module()
class ToyOfNumbers(nn.Module):
    """Its constructor asks a tensor for a number, which none has on the meta device."""

    def __init__(self, wings: int = 0) -> None:
        super().__init__()
        assert wings == 0, 'it has no wings'
        self.rates = torch.linspace(0, 1, 3).tolist()
        self.backbone = nn.Conv2d(1, 6, 1)


def test_models_that_need_numbers_are_built_on_the_cpu():
    cfg = Config(dict(model=dict(type='ToyOfNumbers')))
    assert outline_model(cfg).rates == [0, 0.5, 1]
    cfg.model.wings = 2
    with pytest.raises(UserError, match=r'^the model of this config cannot be built: it has no w'):
        outline_model(cfg)


def test_a_model_of_no_toolbox_is_built_without_a_word(monkeypatch):
    said = []

    def print_log(text: str, logger: object = None, level: int = logging.INFO) -> None:
        said.extend([text] * (level >= logging.WARNING))

    monkeypatch.setattr('mmengine.logging.print_log', print_log)
    outline_model(Config(dict(model=dict(type='ToyOfNumbers'))))
    assert not said


class Maps(nn.Module):
    """A backbone of four maps, of as many channels as the picture has, and twice that, ..."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        assert x.is_meta
        return [x.repeat(1, 2**i, 1, 1) for i in range(4)]


@pytest.mark.parametrize(
    'model, message',
    [
        (dict(head=dict(in_channels=24)), None),
        (dict(backbone=dict(in_channels=1), head=dict(in_channels=8)), None),
        (
            dict(head=dict(in_channels=8)),
            r'head takes \[8\] channels, .* gives \[24\]: mend its in_',
        ),
        (dict(head=dict(in_channels=3, in_index=-4)), None),
        (dict(head=dict(in_channels=3, in_index=-5)), r'head uses maps \[-5\] of a .* gives 4'),
        (dict(head=dict(in_channels=24, in_index=3)), None),
        (dict(head=dict(in_channels=24, in_index=4)), r'head uses maps \[4\] of a .* gives 4'),
        (dict(head=dict(in_channels=[3, 6], in_index=[0, 1])), None),
        (dict(neck=dict(type='Pool'), head=dict(in_channels=5)), r'head takes \[5\]'),
        (dict(neck=[dict(type='Pool'), dict(in_channels=5)]), r'neck takes \[5, 5, 5, 5\]'),
    ],
)
def test_maps_and_who_reads_them(model, message):
    built = nn.Module()
    built.backbone = Maps()
    if message is None:
        check_channels(Config(dict(model=model)), built)
    else:
        with pytest.raises(UserError, match=f'^{message}'):
            check_channels(Config(dict(model=model)), built)


def test_a_backbone_that_cannot_be_asked_has_its_way():
    built = nn.Module()
    built.backbone = nn.Conv2d(5, 6, 1)  # of five channels, and not of a list of maps
    check_channels(Config(dict(model=dict(head=dict(in_channels=7)))), built)


@pytest.mark.parametrize('trained', [True, False])
def test_what_a_training_is_asked_beside(trained, tmp_path, monkeypatch):
    """Whether another one has the folder, and how long the schedule is, by its own pictures."""
    seen = []
    for name in ('check_words', 'check_data', 'check_model', 'prepare_loading'):
        monkeypatch.setattr(checks, name, lambda *_: None)
    monkeypatch.setattr(checks, 'check_lock', lambda folder: seen.append(folder))
    counts = dict(train_dataloader=12, val_dataloader=3)
    monkeypatch.setattr(checks, 'examine_contents', lambda *_: counts)
    monkeypatch.setattr(checks, 'warn_of_schedule', lambda cfg, pictures: seen.append(pictures))
    cfg = Config(dict(work_dir=str(tmp_path)))
    checks.check_run(cfg, ('train_dataloader',) if trained else ('test_dataloader',), False)
    assert seen == ([str(tmp_path), 12] if trained else [])


@pytest.mark.parametrize('pretrained', [False, True])
@pytest.mark.parametrize('whole_model', [False, True])
def test_what_of_a_model_is_looked_at(pretrained, whole_model, tmp_path, monkeypatch):
    """Files for its start where they are needed, and the checkpoint, as a whole or not."""
    calls = []
    monkeypatch.setattr(checks, 'check_pretrained', lambda model: calls.append('pretrained'))
    monkeypatch.setattr(checks, 'check_fit', lambda *args: calls.append(args[1:]))
    cfg = Config(dict(model=dict(type='ToyOfNumbers')))
    check_model(cfg, pretrained, whole_model)
    assert calls == ['pretrained'] * pretrained
    torch.save(dict(state_dict=dict(a=torch.ones(1))), tmp_path / 'a.pth')
    cfg.load_from = str(tmp_path / 'a.pth')
    check_model(cfg, False, whole_model)
    assert calls[pretrained:] == [(dict(a=torch.ones(1)), cfg.load_from, whole_model)]


@pytest.mark.skipif(not Path('/proc/self').is_dir(), reason='a folder that nobody can write')
def test_a_work_dir_that_cannot_be_written():
    with pytest.raises(UserError, match=r"'/proc/a/b' cannot be written: .* in '/proc'$"):
        check_work_dir('/proc/a/b')
