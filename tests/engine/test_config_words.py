"""Words of a config that nothing reads are refused with what was meant."""

import functools
import inspect
import re
from pathlib import Path

import mmdet
import mmpretrain
import mmseg
import pytest
from helpers import CONFIGS, DIGIT_CONFIGS, check_fails
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import TRANSFORMS
from torch import nn

from mmdense.engine.checks import warn_of_schedule
from mmdense.engine.config import read_config
from mmdense.engine.config_words import (
    _parameters,
    check_words,
    find_late_schedules,
)
from mmdense.engine.data import prepare_loading
from mmdense.errors import UserError

# One config of each kind here, and what the toolboxes write in ways of their own.
OURS = sorted(p for p in CONFIGS.glob('*/*.py') if '_base_' not in p.parts)
THEIRS = {
    mmdet: [
        'vfnet/vfnet_r50-mdconv-c3-c5_fpn_ms-2x_coco',  # passes over its parent's constructor
        'dino/dino-5scale_swin-l_8xb2-12e_coco',
        'rtmdet/rtmdet-ins_s_8xb32-300e_coco',
        'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco',
        'yolox/yolox_s_8xb8-300e_coco',
        'detr/detr_r50_8xb2-150e_coco',  # takes a word out of its loss before it builds that
        'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco',
    ],
    mmseg: [
        'mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512',
        'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512',
        'deeplabv3plus/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024',
    ],
    mmpretrain: [
        'swin_transformer/swin-tiny_16xb64_in1k',
        'mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k',
        'resnet/resnet50_8xb32_in1k',
        'minigpt4/minigpt-4_vicuna-7b_caption',
    ],
}
CONFIG_FILES = [str(p) for p in OURS] + [
    str(Path(package.__file__).parent / '.mim' / 'configs' / f'{name}.py')
    for package, names in THEIRS.items()
    for name in names
]


@pytest.mark.parametrize('path', CONFIG_FILES, ids=lambda path: Path(path).stem)
def test_configs_that_run_pass(path):
    cfg = read_config(path)
    check_words(cfg)
    assert not list(find_late_schedules(cfg))


DET, SEG, CLS = (DIGIT_CONFIGS[scope] for scope in ('mmdet', 'mmseg', 'mmpretrain'))


@pytest.mark.parametrize(
    'option, message',
    [
        ('trian_cfg.max_epochs', "has no 'trian_cfg'; did you mean train_cfg?"),
        ('optim_wraper.type', 'did you mean optim_wrapper?'),
        ('channel', 'did you mean channels?'),  # the config's own variable
        ('bananas', "has no 'bananas'"),
    ],
)
def test_overrides_that_nothing_reads(option, message):
    with pytest.raises(UserError) as error:
        read_config(str(DET), {option: 1})
    assert str(error.value).startswith(f'--cfg-options {option}: the config has no')
    assert str(error.value).endswith(message)


def test_overrides_that_are_read():
    """Of the run, though the config has them not, and of the config itself."""
    cfg = read_config(str(DET), {'compile': True, 'custom_hooks': [], 'channels': 3})
    assert cfg.channels == 3
    check_words(cfg)


UNKNOWN = [
    (
        DET,
        'train_dataloader.batchsize',
        "train_dataloader has no setting 'batchsize'",
        'batch_size',
    ),
    (DET, 'train_dataloader.dataset.anns_file', '(CocoDataset)', 'ann_file'),
    (DET, 'train_dataloader.dataset.pipeline.1.with_masks', '(LoadAnnotations)', 'with_mask'),
    (DET, 'train_dataloader.sampler.shufle', '(DefaultSampler)', 'shuffle'),
    (DET, 'train_cfg.max_epoch', 'train_cfg has no', 'max_epochs'),
    (DET, 'val_cfg.fp_16', 'val_cfg has no', 'fp16'),
    (DET, 'model.backbone.archh', 'model.backbone (mmdense.PaCaViT)', 'arch'),
    (DET, 'model.backbone.init_cfg.chekpoint', '(Pretrained)', 'checkpoint'),
    (DET, 'model.rpn_head.anchor_generator.scale', '(AnchorGenerator)', 'scales'),
    (DET, 'model.roi_head.bbox_head.numclasses', '(Shared2FCBBoxHead)', 'num_classes'),
    (DET, 'model.data_preprocessor.means', '(DetDataPreprocessor)', 'mean'),
    (DET, 'optim_wrapper.accumulative_count', '(OptimWrapper)', 'accumulative_counts'),
    (DET, 'optim_wrapper.optimizer.weight_deca', '(AdamW)', 'weight_decay'),
    (DET, 'optim_wrapper.clip_grad.maxnorm', 'optim_wrapper.clip_grad has no', 'max_norm'),
    (DET, 'optim_wrapper.paramwise_cfg.norm_decay', 'paramwise_cfg has no', 'norm_decay_mult'),
    (DET, 'param_scheduler.0.start_facto', 'param_scheduler.0 (LinearLR)', 'start_factor'),
    (DET, 'default_hooks.chekpoint', 'default_hooks has no', 'checkpoint'),
    (DET, 'default_hooks.checkpoint.intervall', 'default_hooks.checkpoint (', 'interval'),
    (DET, 'default_hooks.logger.intervall', '(LoggerHook)', 'interval'),
    (DET, 'randomness.sed', 'randomness has no', 'seed'),
    (DET, 'env_cfg.cudnn_benchmarks', 'env_cfg has no', 'cudnn_benchmark'),
    (DET, 'env_cfg.mp_cfg.start_method', 'env_cfg.mp_cfg has no', 'mp_start_method'),
    (DET, 'val_evaluator.metrics', '(CocoMetric)', 'metric'),
    (DET, 'visualizer.savedir', '(DetLocalVisualizer)', 'save_dir'),
    (DET, 'visualizer.vis_backends.0.savedir', '(LocalVisBackend)', 'save_dir'),
    (DET, 'log_processor.windowsize', '(LogProcessor)', 'window_size'),
    (DET, 'auto_scale_lr.base_batch', 'auto_scale_lr has no', 'base_batch_size'),
    (SEG, 'model.decode_head.num_classe', '(UPerHead)', 'num_classes'),
    (SEG, 'val_evaluator.iou_metric', '(IoUMetric)', 'iou_metrics'),
    (SEG, 'train_dataloader.dataset.img_sufix', '(BaseSegDataset)', 'img_suffix'),
    (CLS, 'model.head.loss.label_smooth', '(LabelSmoothLoss)', 'label_smooth_val'),
    (CLS, 'train_dataloader.dataset.data_rot', '(CustomDataset)', 'data_root'),
    (CONFIGS / 'paca/paca_s_in1k.py', 'train_dataloader.dataset.spilt', '(ImageNet)', 'split'),
]


@pytest.mark.parametrize('path, option, where, meant', UNKNOWN, ids=[case[1] for case in UNKNOWN])
def test_settings_that_a_class_has_not(path, option, where, meant):
    value = dict(interval=1) if 'chekpoint' in option.split('.')[1] else 1
    cfg = read_config(str(path), {option: value})
    prepare_loading(cfg)
    with pytest.raises(UserError) as error:
        check_words(cfg)
    assert where in str(error.value) and '\n' not in str(error.value)
    assert str(error.value).endswith(
        f"has no setting '{option.split('.')[-1]}'; did you mean {meant}?"
    )


@pytest.mark.parametrize(
    'option, value',
    [
        ('custom_hooks', [dict(type='EMAHook', momentum=0.1, priority=49)]),  # handed to the EMA
        ('custom_hooks', [dict(type='mmdense.FiniteHook', max_skips=3)]),
        ('custom_hooks', [dict(type='NoSuchHook', anything=3)]),  # its builder says so
        ('model.backbone', dict(type='mmpretrain.TIMMBackbone', model_name='a', whatever=1)),
        ('optim_wrapper.constructor', 'mmdense.LayerDecayOptimWrapperConstructor'),
        ('optim_wrapper.paramwise_cfg.custom_keys.backbone.whatever', 1),
        ('val_evaluator', dict(type='mmseg.IoUMetric', keep_results=True)),  # it takes whatever
        ('default_hooks.logger', None),
        ('default_hooks.mine', dict(type='mmdense.MeanLossHook')),
        ('train_dataloader.num_batch_per_epoch', 4),
        ('train_cfg', dict(by_epoch=False, max_iters=3)),
        ('train_dataloader.dataset', dict(type='RepeatDataset', times=2, dataset=dict())),
        ('model.backbone.norm_cfg', dict(type='BN', requires_grad=False)),
    ],
)
def test_settings_that_are_taken(option, value):
    cfg = read_config(str(DET))
    *parents, last = option.split('.')
    functools.reduce(lambda node, key: node.setdefault(key, {}), parents, cfg)[last] = value
    check_words(cfg)


@TRANSFORMS.register_module()
class TakesOutFirst:
    """Its steps have a word that it takes out before it builds them."""

    def __init__(self, steps: list[dict]) -> None:
        self.weights = [step.pop('weight', 1) for step in steps]


@pytest.mark.parametrize('word', ['weight', 'wait'])
def test_what_a_parent_takes_out_of_its_list(word):
    step = dict(type='mmcv.Resize', scale=8, **{word: 2})
    cfg = Config(
        dict(train_dataloader=dict(dataset=dict(pipeline=[dict(type=TakesOutFirst, steps=[step])])))
    )
    if word == 'weight':
        check_words(cfg)
    else:
        with pytest.raises(UserError, match=r"steps.0 \(mmcv.Resize\) has no setting 'wait'"):
            check_words(cfg)


@pytest.mark.parametrize(
    'word, meant',
    [
        ('trian_cfg', 'train_cfg'),
        ('default_hook', 'default_hooks'),
        ('optim_wraper', 'optim_wrapper'),
        ('train_dataloder', 'train_dataloader'),
        ('test_pipeline', None),
        ('train_cfg_long', None),
        ('train_cfg2', None),
        ('optimizer', None),
        ('channels', None),
        ('train_dataset', None),
        ('models', None),
        ('max_epochs', None),
        ('backbone_norm_cfg', None),
    ],
)
def test_variables_of_a_config(word, meant, tmp_path):
    """Only a near miss of what a run reads is refused; variables are the config's business."""
    path = tmp_path / 'mine.py'
    path.write_text(f'train_cfg = dict(by_epoch=True, max_epochs=1)\n{word} = dict(a=1)\n')
    if meant is None:
        check_words(read_config(str(path)))
    else:
        with pytest.raises(UserError, match=f"'{word}' is read by nothing; did you mean {meant}"):
            check_words(read_config(str(path)))


class Parent:
    def __init__(self, a: int, b: int = 0) -> None: ...


class Hands(Parent):
    def __init__(self, c: int, **kwargs: object) -> None:
        kwargs['b'] = 3
        kwargs = {'a': 1, **kwargs}
        super().__init__(**kwargs)


class Pops(Parent):
    def __init__(self, c: int, **kwargs: object) -> None:
        kwargs.pop('d', None)
        super().__init__(**kwargs)


class Elsewhere(Parent):
    def __init__(self, c: int, **kwargs: object) -> None:
        self.child = nn.Linear(**kwargs)
        super().__init__(1)


class Swallows(Parent):
    def __init__(self, c: int, **kwargs: object) -> None:
        super().__init__(1)


class Passes(Hands):
    def __init__(self, e: int, **kwargs: object) -> None:
        super(Hands, self).__init__(**kwargs)


class Named(Hands):
    def __init__(self, *args: object, e: int = 0, **kwargs: object) -> None:
        super(Named, self).__init__(*args, **kwargs)  # noqa: UP008


def free(x: int, **kwargs: object) -> None: ...


@pytest.mark.parametrize(
    'kind, words, takes_any',
    [
        (Parent, 'a b', False),
        (Hands, 'a b c', False),
        (Named, 'a b c e', False),
        (Pops, 'c', True),
        (Elsewhere, 'c', True),
        (Swallows, 'c', True),
        (Passes, 'e', True),
        (free, 'x', True),
        (nn.Conv2d, 'in_channels kernel_size', False),
        (CheckpointHook, 'interval', True),
    ],
)
def test_parameters(kind, words, takes_any):
    found, rest = _parameters(kind)
    assert found >= {*words.split()} and rest is takes_any
    if inspect.getmodule(kind).__name__ == __name__ and not rest:
        assert found - {'self', 'args', 'kwargs'} == {*words.split()}


@pytest.mark.parametrize(
    'train_cfg, rest, iters, message',
    [
        (dict(max_epochs=2), dict(begin=0, end=2), 10, None),
        (dict(max_epochs=2), dict(begin=0), 10, None),
        (
            dict(max_epochs=2),
            dict(end=3),
            10,
            'until epoch 3, but the training ends after 2 e',
        ),
        (dict(max_epochs=2), dict(begin=2), 10, 'begins at epoch 2'),
        (dict(max_epochs=9), dict(milestones=[8, 11]), 10, r'has milestones \[11\]'),
        (dict(max_epochs=2), dict(by_epoch=False, end=21), 10, 'iteration 21, .* after 20 iterat'),
        (dict(max_epochs=2), dict(by_epoch=False, end=20), 10, None),
        (dict(max_epochs=2), dict(by_epoch=False, end=10**6), None, None),
        (dict(max_iters=9), dict(by_epoch=False, end=10), 3, 'iteration 10, .* after 9 iterations'),
        (dict(max_iters=9), dict(by_epoch=True, end=10), 3, None),
    ],
)
def test_schedules_behind_the_end(train_cfg, rest, iters, message, capsys):
    loader = dict(batch_size=2)
    cfg = Config(
        dict(
            train_cfg=train_cfg,
            train_dataloader=loader,
            param_scheduler=[dict(type='LinearLR', **rest)],
        )
    )
    warn_of_schedule(cfg, iters and iters * 2)
    said = capsys.readouterr().err
    if message is None:
        assert said == ''
    else:
        assert said.startswith('warning: param_scheduler.0 (LinearLR) ') and said.count('\n') == 1
        assert re.search(message, said)


def test_nothing_evaluated_or_saved():
    cfg = Config(
        dict(
            train_cfg=dict(by_epoch=True, max_epochs=2, val_begin=3),
            val_dataloader=dict(),
            default_hooks=dict(checkpoint=dict(interval=5, save_last=False)),
        )
    )
    cfg.param_scheduler = [dict(begin=9), dict(type='CosineAnnealingLR', begin=2)]
    late, first, second = find_late_schedules(cfg)
    assert late.startswith('param_scheduler.1 (CosineAnnealingLR) begins at epoch 2, but')
    assert 'val_begin is 3' in first and 'nothing is evaluated' in first
    assert 'saved each 5 epochs' in second
    cfg.default_hooks.checkpoint.save_last = True  # mmengine's default
    cfg.train_cfg.val_begin = 2
    del cfg.param_scheduler[1]
    assert not list(find_late_schedules(cfg))


def test_the_tools_say_it(place, run_tool):
    args = ('train.py', DIGIT_CONFIGS['mmdet'], '--dry-run', '--cfg-options')
    start = 'model.backbone.init_cfg=None'
    check_fails(run_tool(*args, 'trian_cfg.max_epochs=1'), 'did you mean train_cfg?')
    check_fails(run_tool(*args, start, 'train_dataloader.batchsize=4'), 'did you mean batch_size?')
    code, _, err = run_tool(*args, start, 'train_cfg.max_epochs=1')
    assert code == 0
    assert [line for line in err.splitlines() if line.startswith('warning: ')] == [
        'warning: param_scheduler.0 (LinearLR) lasts until iteration 50, but the training ends '
        'after 1 iterations',
        'warning: param_scheduler.1 (CosineAnnealingLR) lasts until epoch 3, but the training '
        'ends after 1 epochs',
    ]
