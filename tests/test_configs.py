"""Every config builds; users' configs elsewhere inherit from ours and name our models."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

import mmdense

ROOT = Path(mmdense.__file__).parent
CONFIGS = sorted(p for p in (ROOT / 'configs').glob('*/*.py'))

# Millions of parameters of the published networks (the authors' code, counted).
PARAMS = {
    'paca_t_in1k': 12.201,
    'paca_s_in1k': 22.038,
    'paca_b_in1k': 46.911,
    'paca_t_teacher_in1k': 12.484,
    'paca_s_teacher_in1k': 21.075,
    'paca_b_teacher_in1k': 47.659,
    'paca_s_mlp_in1k': 22.637,
    'paca_s_2_0_in1k': 21.978,
    'paca_s_49_0_in1k': 22.007,
    'paca_s_49_100_in1k': 22.228,
    'paca_s_100_49_in1k': 22.211,
    'paca_s_100_in1k': 22.245,
    'paca_s_blockwise_in1k': 24.192,
    'groupmixformer_m_in1k': 5.733,
    'groupmixformer_t_in1k': 10.949,
    'groupmixformer_s_in1k': 22.421,
    'groupmixformer_b_in1k': 45.827,
    'groupmixformer_l_in1k': 71.834,
    'fcvit_tiny_in1k': 4.785,
    'fcvit_b12_in1k': 14.702,
    'fcvit_b24_in1k': 26.960,
    'fcvit_b48_in1k': 51.477,
    'msf_s_in1k': 23.728,
    'msf_s_g2_in1k': 20.189,
    'msf_s_orig_in1k': 21.959,
    'msf_s_orig_g2_in1k': 19.305,
    'mask_rcnn_paca_t_1x': 31.97,
    'mask_rcnn_paca_s_1x': 41.81,
    'mask_rcnn_paca_b_1x': 66.61,
    'upernet_paca_t_160k': 41.56,
    'upernet_paca_s_160k': 51.40,
    'upernet_paca_b_160k': 77.18,
}


def build(cfg: Config) -> torch.nn.Module:
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_config_builds(path):
    cfg = Config.fromfile(path)
    model = build(cfg)
    assert type(model.backbone).__module__.startswith('mmdense.')
    if path.parent.name != 'digits':
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        assert millions == pytest.approx(PARAMS[path.stem], abs=0.006)


def test_published_configs_are_all_here():
    assert {p.stem for p in CONFIGS if p.parent.name != 'digits'} == set(PARAMS)


def test_coco_recipe():
    """The published schedule: AdamW 1e-4, batch 16, 12 epochs, 500 warm-up, steps 8 and 11."""
    cfg = Config.fromfile(ROOT / 'configs/paca/mask_rcnn_paca_s_1x.py')
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 0.05)
    assert 'momentum' not in optimizer
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys.norm.decay_mult == 0
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.start_factor, warm_up.end, warm_up.by_epoch) == (0.001, 500, False)
    assert steps.milestones == [8, 11] and cfg.train_cfg.max_epochs == 12
    assert cfg.auto_scale_lr.base_batch_size == 16 and cfg.train_dataloader.batch_size == 2
    assert cfg.model.backbone.drop_path_rate == 0.1
    resize, crop = cfg.train_dataloader.dataset.pipeline[3].transforms
    assert [s[0] for s in resize[0].scales] == list(range(480, 801, 32))
    assert crop[1].crop_size == (384, 600)


def test_ade20k_recipe():
    cfg = Config.fromfile(ROOT / 'configs/paca/upernet_paca_s_160k.py')
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 6e-5, 0.01)
    warm_up, poly = cfg.param_scheduler
    assert (warm_up.end, poly.begin, poly.end, poly.power) == (1500, 1500, 160000, 1.0)
    assert cfg.train_cfg.max_iters == 160000
    assert cfg.model.backbone.clusters == (200, 200, 200, 0)


def test_imagenet_recipe():
    cfg = Config.fromfile(ROOT / 'configs/paca/paca_b_in1k.py')
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(5e-4 * 1024 / 512)
    assert cfg.train_dataloader.batch_size == 128 and cfg.train_cfg.max_epochs == 300
    assert cfg.param_scheduler[1].eta_min == 5e-6 and cfg.param_scheduler[0].end == 5
    assert cfg.model.backbone.drop_path_rate == 0.5


def test_user_config_inherits_from_ours(tmp_path):
    (tmp_path / 'mine.py').write_text(
        "_base_ = 'mmdense::paca/mask_rcnn_paca_s_1x.py'\n"
        'classes = dict(num_classes=3)\n'
        'model = dict(roi_head=dict(bbox_head=classes, mask_head=classes))\n'
    )
    model = build(Config.fromfile(tmp_path / 'mine.py'))
    assert model.roi_head.bbox_head.fc_cls.out_features == 4


BACKBONES = {  # as a user writes them
    'paca': "dict(_delete_=True, type='mmdense.PaCaViT', arch='tiny')",
    'groupmixformer': "dict(_delete_=True, type='mmdense.GroupMixFormer', arch='miny')",
    'fcvit': "dict(_delete_=True, type='mmdense.FCViT', arch='tiny')",
    'msf': "dict(_delete_=True, type='mmdense.MSFViT', arch='small', out_indices=(2, 5, 8, 11))",
}
NECKS = {
    'paca': 'dict(in_channels=[96, 192, 320, 384])',
    'groupmixformer': 'dict(in_channels=[40, 80, 160, 160])',
    'fcvit': 'dict(in_channels=[32, 64, 160, 320])',
    'msf': """[
        dict(type='mmseg.Feature2Pyramid', embed_dim=384, norm_cfg=dict(type='BN')),
        dict(type='FPN', in_channels=[384] * 4, out_channels=256, num_outs=5),
    ]""",
}


@pytest.mark.parametrize('family', BACKBONES)
@pytest.mark.parametrize(
    'base',
    [
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    ],
)
def test_mmdetection_config_takes_our_backbone(tmp_path, base, family):
    (tmp_path / 'mine.py').write_text(
        f"_base_ = '{base}'\nmodel = dict(backbone={BACKBONES[family]}, neck={NECKS[family]})\n"
    )
    model = build(Config.fromfile(tmp_path / 'mine.py')).eval()
    with torch.no_grad():
        maps = model.extract_feat(torch.randn(1, 3, 64, 96))
    assert [m.shape[1] for m in maps] == [256] * 5


def test_semantic_fpn_takes_our_backbone(tmp_path):
    (tmp_path / 'mine.py').write_text(
        "_base_ = 'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py'\n"
        'model = dict(pretrained=None,\n'
        "             backbone=dict(_delete_=True, type='mmdense.PaCaViT', arch='tiny'),\n"
        '             neck=dict(in_channels=[96, 192, 320, 384]))\n'
    )
    model = build(Config.fromfile(tmp_path / 'mine.py'))
    assert type(model.backbone).__name__ == 'PaCaViT'
