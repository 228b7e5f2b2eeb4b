"""Every config builds; users' configs elsewhere inherit from ours and name our models."""

import ast
import functools
import inspect
from collections.abc import Iterator
from copy import deepcopy
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import timm
import torch
from helpers import ROOT
from mmengine import fileio
from mmengine.config import Config
from mmengine.config import utils as config_utils
from mmengine.registry import MODELS, DefaultScope
from recipes import RECIPES

from mmdense.engine.checks import check_channels
from mmdense.inference.model_zoo import metafiles

CONFIGS = {
    f'{path.parent.name}/{path.stem}': path
    for path in sorted((ROOT / 'configs').glob('[!_]*/*.py'))
}
# This project's own, and the families' recipes with backbones of timm: no family's, in no metafile.
OURS = ('digits/', 'own/', 'study/')
TIMM = [name for name in CONFIGS if name.startswith('timm/')]
PUBLISHED = [name for name in CONFIGS if not name.startswith((*OURS, 'timm/'))]  # models of others

ENTRIES = {
    entry['Config'].removeprefix('configs/').removesuffix('.py'): entry
    for metafile in metafiles()
    for entry in fileio.load(metafile)['Models']
}


@pytest.fixture(autouse=True, scope='module')
def toolboxes_are_read_once():
    """mmengine reads all metafiles of a toolbox for each of its configs that a config names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_utils, 'load', functools.cache(config_utils.load))
        yield


@functools.cache
def load(name: str) -> Config:
    return Config.fromfile(CONFIGS[name])


def build(cfg: Config, device: str = 'meta') -> torch.nn.Module:
    """The model; by default without numbers in its parameters, which takes no time."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device(device):
        return MODELS.build(deepcopy(cfg.model))


@pytest.mark.parametrize('name', CONFIGS)
def test_config_builds(name):
    """With the parameters that its metafile states."""
    model = build(load(name))
    assert type(model.backbone).__module__.startswith('mmdense.')
    if name in PUBLISHED:
        params = sum(p.numel() for p in model.parameters())
        assert params == ENTRIES[name]['Metadata']['Parameters']


@pytest.mark.parametrize('name', [*PUBLISHED, *TIMM])
def test_docstring_is_title_and_command(name):
    """No figures: those stand in the metafile."""
    title, command = filter(None, get_docstring(name).splitlines())
    assert title.endswith('.')
    assert command.removesuffix(' --amp') == f'bash tools/dist_train.sh configs/{name}.py 8'


def get_docstring(name: str) -> str:
    return ast.get_docstring(ast.parse(CONFIGS[name].read_text()))


def test_every_config_is_in_a_metafile():
    assert ENTRIES.keys() == set(PUBLISHED)
    assert all(entry['Name'] == Path(name).name for name, entry in ENTRIES.items())


@pytest.mark.parametrize('name', [name for name in PUBLISHED if not name.endswith('in1k')])
def test_pretrained_file_is_named_after_its_config(name):
    """And that config is of the same backbone; the number of clusters may differ."""
    own = load(name).model.backbone
    assert (own.init_cfg.type, own.init_cfg.prefix) == ('Pretrained', 'backbone.')
    scheme, _, published = own.init_cfg.checkpoint.partition('://')
    assert scheme == 'mmdense'
    variant = load(f'{Path(name).parent}/{published}').model.backbone
    for key in ('type', 'arch', 'clustering', 'clustering_interval', 'attention', 'groups'):
        assert get_option(variant, key) == get_option(own, key), key


def get_option(backbone: dict, key: str) -> object:
    """What a backbone is built with: its config's value or the class's default."""
    parameters = inspect.signature(MODELS.get(backbone['type'])).parameters
    default = parameters[key].default if key in parameters else None
    return backbone.get(key, default)


@pytest.mark.parametrize('name', TIMM)
def test_backbone_of_timm_has_weights(name):
    """Those that timm has by that name; and neck and heads take its maps."""
    cfg = load(name)
    assert cfg.model.backbone.model_name in timm.list_pretrained()
    assert cfg.model.backbone.pretrained is True and cfg.model.backbone.init_cfg is None
    model = build(cfg)
    check_channels(cfg, model)
    number = len(model.backbone(torch.empty(1, 3, 64, 96, device='meta')))
    assert number == (3 if 'retinanet' in name else 4)


def test_methods_of_timms_configs():
    """For each backbone one of each dense method that the families have."""
    methods = {Path(name).name.partition('_fcvit_')[0] for name in PUBLISHED if '_fcvit_' in name}
    for backbone in ('_convnext_t_dinov3_', '_vit_s_dinov3_'):
        names = [Path(name).name for name in TIMM if backbone in name]
        assert {name.partition(backbone)[0] for name in names} == methods


@pytest.mark.parametrize('name', CONFIGS)
def test_recipe(name):
    (row,) = [row for pattern, row in RECIPES.items() if fnmatchcase(name, pattern)]
    assert get_recipe(name) == row
    assert load(name).val_dataloader.dataset.pipeline == load(name).test_dataloader.dataset.pipeline


def test_every_recipe_is_of_a_config():
    for pattern in RECIPES:
        assert any(fnmatchcase(name, pattern) for name in CONFIGS), pattern


def get_recipe(name: str) -> dict:
    """A config's recipe in the words of the table."""
    cfg = load(name)
    backbone, optim = cfg.model.backbone, cfg.optim_wrapper
    optimizer = get_optimizer_options(**optim.optimizer)
    paramwise = optim.get('paramwise_cfg') or {}
    mults = {
        key: (mult.get('lr_mult', 1), mult.get('decay_mult', 1))
        for key, mult in paramwise.get('custom_keys', {}).items()
        if not key.startswith('.')  # Swin's position tables
    }
    _, norm_decay = mults.pop('norm', (1, paramwise.get('norm_decay_mult', 1)))
    *warm_up, decay = cfg.param_scheduler
    mixes = {mix.type: mix.alpha for mix in (cfg.model.get('train_cfg') or {}).get('augments', [])}
    pipeline = cfg.train_dataloader.dataset.pipeline
    transforms = {transform.type: transform for transform in flatten(pipeline)}
    jitter = transforms.get('ColorJitter')
    jittered = ('brightness', 'contrast', 'saturation', 'hue')
    return dict(
        optimizer=optim.optimizer.type,
        lr=optimizer['lr'],
        weight_decay=optimizer['weight_decay'],
        betas=tuple(optimizer['betas']),
        norm_decay=norm_decay,
        bias_decay=paramwise.get('bias_decay_mult', 1),
        flat_decay=paramwise.get('flat_decay_mult', 1),
        mults=mults,
        clip_grad=(optim.get('clip_grad') or {}).get('max_norm'),
        amp=get_docstring(name).endswith(' --amp'),
        drop_path=get_option(backbone, 'drop_path_rate'),
        layer_scale=get_option(backbone, 'layer_scale'),
        warm_up=describe(*warm_up) if warm_up else None,
        schedule=describe(decay),
        length=get_length(cfg.train_cfg),
        batch=cfg.train_dataloader.batch_size,
        base_batch=cfg.auto_scale_lr.base_batch_size,
        repeats=cfg.train_dataloader.sampler.get('num_repeats', 1),
        augmentations=get_names(pipeline),
        train=get_sizes(pipeline),
        test=get_sizes(cfg.test_dataloader.dataset.pipeline),
        flip=transforms.get('RandomFlip', {}).get('prob'),
        interpolation=transforms.get('RandomResizedCrop', {}).get('interpolation'),
        rand_augment=get_rand_augment(transforms.get('RandAugment')),
        erasing=transforms.get('RandomErasing', {}).get('erase_prob'),
        jitter=jitter and tuple(jitter.get(key, 0) for key in jittered),
        mixup=mixes.get('Mixup'),
        cutmix=mixes.get('CutMix'),
        smoothing=cfg.model.get('head', {}).get('loss', {}).get('label_smooth_val'),
    )


def get_optimizer_options(type: str, _scope_: str = '', **options: object) -> dict:
    """With PyTorch's defaults; an option that another optimizer left behind is an error."""
    return getattr(torch.optim, type)([torch.zeros(1)], **options).defaults


def describe(schedule: dict) -> str:
    begin, end = schedule.get('begin', 0), schedule.end
    span = f'from {begin} to {end}, min {schedule.get("eta_min", 0):g}'
    match schedule.type:
        case 'LinearLR':
            unit = 'epochs' if schedule.by_epoch else 'iterations'
            return f'{end - begin} {unit} from {schedule.start_factor:g}'
        case 'MultiStepLR':
            steps = ', '.join(map(str, schedule.milestones))
            return f'steps at {steps} of {end} by {schedule.gamma:g}'
        case 'CosineAnnealingLR':
            return f'cosine {span}'
        case 'PolyLR':
            return f'poly {schedule.power:g} {span}'


def get_length(train_cfg: dict) -> str:
    if 'max_iters' in train_cfg:
        return f'{train_cfg.max_iters} iterations'
    return f'{train_cfg.max_epochs} epochs'


def flatten(pipeline: list) -> Iterator[dict]:
    """The transforms of a pipeline, of each choice too."""
    for transform in pipeline:
        yield transform
        for choice in transform.get('transforms', []):
            yield from flatten(choice)


def get_names(pipeline: list) -> str:
    """The augmentations in order, of which one of [a | b] is drawn."""
    names = []
    for transform in pipeline:
        if transform.type == 'RandomChoice':
            names.append(f'[{" | ".join(map(get_names, transform.transforms))}]')
        elif not transform.type.startswith(('Load', 'Pack')):
            names.append(transform.type)
    return ' '.join(names)


def get_sizes(pipeline: list) -> list:
    """Of everything that resizes or crops, in order; (width, height) as the toolboxes have it."""
    sizes = []
    for transform in flatten(pipeline):
        match transform.type:
            case 'RandomChoiceResize':  # shorter sides
                sizes.append([min(s) if isinstance(s, tuple) else s for s in transform.scales])
            case 'RandomResize':
                sizes.append((*transform.scale, *transform.ratio_range))
            case 'Resize' | 'ResizeEdge' | 'RandomResizedCrop':
                sizes.append(transform.scale)
            case 'RandomCrop' | 'CenterCrop':
                sizes.append(transform.crop_size)
    return sizes


def get_rand_augment(transform: dict | None) -> str | None:
    """In timm's notation."""
    if transform is None:
        return None
    magnitude = 10 * transform.magnitude_level / transform.total_level
    increasing = int(transform.policies == 'timm_increasing')
    return f'rand-m{magnitude:g}-mstd{transform.magnitude_std}-inc{increasing}'


def test_user_config_inherits_from_ours(tmp_path):
    (tmp_path / 'mine.py').write_text(
        "_base_ = 'mmdense::paca/mask_rcnn_paca_s_1x.py'\n"
        'classes = dict(num_classes=3)\n'
        'model = dict(roi_head=dict(bbox_head=classes, mask_head=classes))\n'
    )
    model = build(Config.fromfile(tmp_path / 'mine.py'))
    assert model.roi_head.bbox_head.fc_cls.out_features == 4


@pytest.mark.parametrize('name', [name for name in CONFIGS if name.startswith('fcvit/')])
def test_inherited_configs_keep_their_toolbox(tmp_path, name):
    """What is inherited builds as the config itself does: models, transforms, hooks."""
    (tmp_path / 'mine.py').write_text(f"_base_ = 'mmdense::{name}.py'\n")
    mine = Config.fromfile(tmp_path / 'mine.py')
    assert mine.to_dict() == load(name).to_dict()
    assert type(build(mine)) is type(build(load(name)))


BACKBONES = {  # as a user writes them
    'paca': "dict(_delete_=True, type='mmdense.PaCaViT', arch='tiny')",
    'groupmixformer': "dict(_delete_=True, type='mmdense.GroupMixFormer', arch='miny')",
    'fcvit': "dict(_delete_=True, type='mmdense.FCViT', arch='tiny')",
    'msf': "dict(_delete_=True, type='mmdense.MSFViT', arch='small', out_indices=(2, 5, 8, 11))",
    'timm': "dict(_delete_=True, type='mmdense.Timm', model_name='test_convnext', pretrained=True)",
}
NECKS = {
    'paca': 'dict(in_channels=[96, 192, 320, 384])',
    'groupmixformer': 'dict(in_channels=[40, 80, 160, 160])',
    'fcvit': 'dict(in_channels=[32, 64, 160, 320])',
    'timm': 'dict(in_channels=[24, 32, 48, 64])',
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
    maps = model.extract_feat(torch.empty(1, 3, 64, 96, device='meta'))
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
