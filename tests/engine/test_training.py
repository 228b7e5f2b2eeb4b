"""One config of each family and method trains, evaluates, saves and resumes on digit scenes.

The config's own model, optimizer, schedule and hooks, with the backbone's published widths but one
or two blocks per stage, and narrow layers in the toolboxes' heads; the digit scenes stand in for
COCO, ADE20K and ImageNet.
"""

import copy
from pathlib import Path

import pytest
import torch
from helpers import DIGIT_CONFIGS, load_config
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope

from mmdense.engine import building, training

SIZES = (('paca', 's'), ('groupmixformer', 's'), ('fcvit', 'b12'), ('msf', 's'))
CONFIGS = [
    f'{family}/{name}'
    for family, size in SIZES
    for name in (
        f'{family}_{size}_in1k',
        f'mask_rcnn_{family}_{size}_1x',
        f'cascade_mask_rcnn_{family}_{size}_1x',
        f'retinanet_{family}_{size}_1x',
        f'upernet_{family}_{size}_160k',
        f'sem_fpn_{family}_{size}_40k',
        f'paca_head_{family}_{size}_160k',
        f'mask2former_{family}_{size}_160k',
    )
]
NUM_CLASSES = {'mmpretrain': 10, 'mmdet': 10, 'mmseg': 11}
# Settings of mmdet's heads, and what they are divided by.
FEWER = {
    'conv_out_channels': 8,
    'embed_dims': 8,
    'fc_out_channels': 16,
    'feat_channels': 8,
    'feedforward_channels': 8,
    'in_channels': 8,
    'max_per_img': 10,
    'num': 8,
    'num_feats': 8,
    'num_layers': 3,
    'num_points': 4,
    'out_channels': 8,
}
NUM_IMAGES = {'mmpretrain': (8, 4), 'mmdet': (4, 2), 'mmseg': (4, 2)}  # to train and evaluate on


def load(name: str) -> Config:
    """The config, shallow, on the digit scenes, for two short epochs or iterations."""
    cfg = load_config(name)
    digits = Config.fromfile(DIGIT_CONFIGS[cfg.default_scope])
    for key in ('val_dataloader', 'val_evaluator', 'test_dataloader', 'test_evaluator'):
        cfg[key] = digits[key]
    cfg.train_dataloader.dataset = digits.train_dataloader.dataset
    cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    loaders = (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
    train, val = NUM_IMAGES[cfg.default_scope]
    for loader, number in zip(loaders, (train, val, val)):
        loader.dataset.indices = number
    if 'retinanet' in name:
        cfg.val_evaluator.metric = 'bbox'
        cfg.model.test_cfg.score_thr = 0.0  # an untrained one is sure of nothing
    set_num_classes(cfg.model, NUM_CLASSES[cfg.default_scope])
    cfg.model.data_preprocessor = {
        **cfg.get('data_preprocessor', {}),
        **cfg.model.get('data_preprocessor', {}),
    }
    if cfg.default_scope == 'mmpretrain':
        cfg.data_preprocessor.num_classes = 10
        cfg.model.pop('data_preprocessor')
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = (128, 128)
    make_shallow(cfg.model.backbone)
    make_narrow(cfg.model)
    cfg.model.backbone.pop('init_cfg', None)
    if cfg.train_cfg.get('by_epoch', 'Epoch' in cfg.train_cfg.get('type', '')):
        cfg.train_cfg.update(max_epochs=1, val_interval=1)
    else:
        cfg.train_cfg.update(max_iters=2, val_interval=2)
        cfg.default_hooks.checkpoint.interval = 2
    cfg.work_dir = f'work_dirs/{Path(name).name}'
    cfg.launcher = 'none'
    cfg.experiment_name = Path(name).name
    return cfg


def set_num_classes(node: object, number: int) -> None:
    """Every ``num_classes`` below a node, and the class weights that depend on it."""
    if isinstance(node, dict):
        if 'num_classes' in node:
            node['num_classes'] = number
        if isinstance(node.get('class_weight'), list):
            node['class_weight'] = [1.0] * number + [0.1]
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            set_num_classes(child, number)


def make_shallow(backbone: dict) -> None:
    arch = MODELS.get(backbone['type']).get_arch(backbone['arch'])
    if 'depths' in arch:
        arch['depths'] = (1, 1, 2, 1)
    else:
        arch['num_layers'] = 4
        if len(backbone.get('out_indices', ())) == 4:
            backbone['out_indices'] = (0, 1, 2, 3)
    backbone['arch'] = arch


def make_narrow(model: dict) -> None:
    """Fewer channels, regions, points and layers in mmdet's heads and in UPerHead, which hold most
    of a small model's weights and work."""
    head = model.get('decode_head', {})
    if 'roi_head' in model or 'bbox_head' in model:
        divide([part for name, part in model.items() if name != 'backbone'])
    elif 'Mask2Former' in head.get('type', ''):
        divide(head)
    elif head.get('type') == 'UPerHead':
        head['channels'] = 64


def divide(node: object) -> None:
    """Every setting below a node that ``FEWER`` names."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in FEWER and isinstance(value, int):
                node[key] = value // FEWER[key]
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            divide(child)


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_trains_evaluates_saves_and_resumes(name, place):
    cfg = load(name)
    runner = building.build_runner(copy.deepcopy(cfg))
    runner.train()
    assert runner.iter >= 2
    (saved,) = Path(cfg.work_dir).glob('[ei]*_[12].pth')
    trained = {k: v.clone() for k, v in runner.model.state_dict().items()}
    metrics = [v for v in runner.message_hub.log_scalars if v.startswith('val/')]
    assert any('bbox_mAP' in m or 'mIoU' in m or 'top1' in m for m in metrics)
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    assert torch.tensor(losses).isfinite().all()

    training.set_resume(cfg, 'auto')
    cfg.experiment_name += '_resumed'
    resumed = building.build_runner(cfg)
    resumed.load_or_resume()
    assert resumed.iter == runner.iter and resumed._resume
    for key, value in resumed.model.state_dict().items():
        assert torch.equal(value, trained[key]), key
    saved.unlink()


@pytest.mark.parametrize('name', CONFIGS)
def test_own_training_pipeline_runs(name, place):
    """The augmentation of the recipe, on a digit scene."""
    cfg = load_config(name)
    digits = Config.fromfile(DIGIT_CONFIGS[cfg.default_scope])
    dataset = digits.train_dataloader.dataset
    if cfg.default_scope == 'mmseg':
        dataset.reduce_zero_label = True  # as on ADE20K
    dataset.pipeline = cfg.train_dataloader.dataset.pipeline
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        sample = DATASETS.build(dataset)[0]
    assert sample['inputs'].dtype == torch.uint8 and sample['inputs'].shape[0] == 3
    if cfg.default_scope == 'mmpretrain':
        assert sample['inputs'].shape[1:] == (224, 224)
    if cfg.default_scope == 'mmseg':
        assert sample['inputs'].shape[1:] == sample['data_samples'].gt_sem_seg.shape
