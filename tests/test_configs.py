"""Every config builds; users' configs elsewhere inherit from ours and name our models."""

import ast
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

import mmdense
from mmdense.engine.complexity import measure
from mmdense.tools.model_zoo import get_shape, metafiles, pages

ROOT = Path(mmdense.__file__).parent
CONFIGS = sorted((ROOT / 'configs').glob('[!_]*/*.py'))

ENTRIES = {
    entry['Config']: entry
    for metafile in metafiles()
    for entry in yaml.safe_load(metafile.read_text())['Models']
}


def build(cfg: Config) -> torch.nn.Module:
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_config_builds(path):
    """With the parameters that its metafile states."""
    cfg = Config.fromfile(path)
    model = build(cfg)
    assert type(model.backbone).__module__.startswith('mmdense.')
    if path.parent.name == 'digits':
        return
    entry = ENTRIES[f'configs/{path.parent.name}/{path.name}']
    assert entry['Name'] == path.stem
    params = sum(p.numel() for p in model.parameters())
    assert params == entry['Metadata']['Parameters']
    assert cfg.auto_scale_lr.base_batch_size in (16, 32, 512, 1024)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_docstring_is_title_and_command(path):
    if path.parent.name != 'digits':
        _, command = ast.get_docstring(ast.parse(path.read_text())).splitlines()
        run = f'bash tools/dist_train.sh configs/{path.parent.name}/{path.name} 8'
        assert command.removesuffix(' --amp') == run


def test_every_config_is_in_a_metafile():
    own = {f'configs/{p.parent.name}/{p.name}' for p in CONFIGS if p.parent.name != 'digits'}
    assert own == ENTRIES.keys()


# The authors' own counts, in millions.
COUNTED = {
    'paca_s_blockwise_in1k': 24.192,
    'paca_b_teacher_in1k': 47.659,
    'groupmixformer_l_in1k': 71.834,
    'fcvit_b48_in1k': 51.477,
    'msf_s_g2_in1k': 20.189,
    'mask_rcnn_paca_s_mlp_1x': 42.41,
    'mask_rcnn_paca_b_teacher_1x': 67.35,
    'mask_rcnn_fcvit_b24_1x': 46.62,
    'upernet_paca_b_160k': 77.18,
    'paca_head_paca_t_160k': 13.33,
    'paca_head_paca_b_teacher_160k': 48.76,
    'paca_head_paca_s_blockwise_160k': 25.78,
}


@pytest.mark.parametrize('name', COUNTED)
def test_measured_parameters_are_the_authors(name):
    (entry,) = [e for e in ENTRIES.values() if e['Name'] == name]
    assert entry['Metadata']['Parameters'] / 1e6 == pytest.approx(COUNTED[name], abs=0.006)


@pytest.mark.parametrize(
    'name', ['paca_t_in1k', 'fcvit_b12_in1k', 'mask_rcnn_msf_s_1x', 'retinanet_paca_s_1x']
)
def test_metafile_macs_are_what_is_measured(name):
    (entry,) = [e for e in ENTRIES.values() if e['Name'] == name]
    counted = measure(Config.fromfile(ROOT / entry['Config']), get_shape(entry))
    assert counted.macs == pytest.approx(entry['Metadata']['FLOPs'], rel=1e-3)


def test_zoo_pages_are_fresh():
    """Run `make zoo` after a change of a metafile."""
    for path, text in pages():
        assert path.read_text() == text, path


def test_pretrained_files_are_named_after_their_configs():
    names = {p.stem for p in CONFIGS}
    for path in CONFIGS:
        init_cfg = Config.fromfile(path).model.backbone.get('init_cfg')
        if init_cfg and path.parent.name != 'digits':
            assert init_cfg.prefix == 'backbone.'
            file = Path(init_cfg.checkpoint)
            assert file.parent == Path('checkpoints') and file.stem in names
            variant = Config.fromfile(path.parent / f'{file.stem}.py').model.backbone
            own = Config.fromfile(path).model.backbone
            defaults = dict(clustering='conv', clustering_interval=0, attention='msf', groups=1)
            for key in ('arch', *defaults):
                default = defaults.get(key)
                assert variant.get(key, default) == own.get(key, default), path


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


def test_groupmixformer_recipe():
    cfg = Config.fromfile(ROOT / 'configs/groupmixformer/groupmixformer_b_in1k.py')
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(5e-4 * 512 / 512)
    assert cfg.train_dataloader.batch_size == 64 and cfg.auto_scale_lr.base_batch_size == 512
    warm_up, cosine = cfg.param_scheduler
    assert cfg.optim_wrapper.optimizer.lr * warm_up.start_factor == pytest.approx(5e-7)
    assert (warm_up.end, cosine.eta_min, cosine.end) == (20, 5e-6, 300)
    assert cfg.optim_wrapper.clip_grad.max_norm == 5
    assert cfg.model.backbone.drop_path_rate == 0.5


def test_fcvit_recipe():
    cfg = Config.fromfile(ROOT / 'configs/fcvit/fcvit_b48_in1k.py')
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-3)
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.05
    assert cfg.auto_scale_lr.base_batch_size == 1024 and cfg.train_cfg.max_epochs == 300
    assert cfg.model.backbone.drop_path_rate == 0.2
    assert cfg.test_dataloader.dataset.pipeline[1].scale == 236  # a crop of 0.95
    dense = Config.fromfile(ROOT / 'configs/fcvit/mask_rcnn_fcvit_b24_1x.py')
    assert dense.optim_wrapper.optimizer.lr == 2e-4
    assert dense.optim_wrapper.optimizer.weight_decay == 1e-4
    assert not dense.optim_wrapper.paramwise_cfg and dense.model.backbone.layer_scale == 1e-6
    dense = Config.fromfile(ROOT / 'configs/fcvit/sem_fpn_fcvit_b24_40k.py')
    assert dense.optim_wrapper.optimizer.lr == 2e-4 and dense.train_cfg.max_iters == 40000
    assert dense.param_scheduler[0].power == 0.9
    assert dense.train_dataloader.batch_size == 4 and dense.auto_scale_lr.base_batch_size == 32


def test_msf_recipe():
    cfg = Config.fromfile(ROOT / 'configs/msf/msf_s_in1k.py')
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-3)
    assert cfg.train_cfg.max_epochs == 100 and cfg.optim_wrapper.clip_grad.max_norm == 1
    assert cfg.param_scheduler[0].start_factor == 0.033 and cfg.param_scheduler[0].end == 10
    assert (cfg.train_dataloader.sampler.type, cfg.train_dataloader.sampler.num_repeats) == (
        'RepeatAugSampler',
        3,
    )
    assert [augment.alpha for augment in cfg.model.train_cfg.augments] == [0.2, 0.2]
    one_of_three = cfg.train_dataloader.dataset.pipeline[3].transforms
    assert [t[0].type for t in one_of_three] == ['RandomGrayscale', 'Solarize', 'GaussianBlur']


def test_paca_head_recipe():
    cfg = Config.fromfile(ROOT / 'configs/paca/paca_head_paca_b_teacher_160k.py')
    assert cfg.model.backbone.drop_path_rate == 0.5
    assert cfg.model.backbone.clusters == (200, 200, 200, 200)
    keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
    assert keys['clustering.assign'].lr_mult == keys.decode_head.lr_mult == 10
    assert keys.norm.decay_mult == 0


def test_user_config_inherits_from_ours(tmp_path):
    (tmp_path / 'mine.py').write_text(
        "_base_ = 'mmdense::paca/mask_rcnn_paca_s_1x.py'\n"
        'classes = dict(num_classes=3)\n'
        'model = dict(roi_head=dict(bbox_head=classes, mask_head=classes))\n'
    )
    model = build(Config.fromfile(tmp_path / 'mine.py'))
    assert model.roi_head.bbox_head.fc_cls.out_features == 4


@pytest.mark.parametrize(
    'path', [p for p in CONFIGS if p.parent.name == 'fcvit'], ids=lambda p: p.stem
)
def test_inherited_configs_keep_their_toolbox(tmp_path, path):
    """What is inherited builds as the config itself does: models, transforms, hooks."""
    (tmp_path / 'mine.py').write_text(f"_base_ = 'mmdense::{path.parent.name}/{path.name}'\n")
    mine, own = Config.fromfile(tmp_path / 'mine.py'), Config.fromfile(path)
    assert "_scope_': 'mmdense'" not in str(mine.to_dict())
    assert type(build(mine)) is type(build(own))


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
