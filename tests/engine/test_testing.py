"""Test-time augmentation mirrors and mirrors back; pictures and predictions of each toolbox."""

from copy import deepcopy
from functools import cache
from inspect import signature
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import TINY
from mmdet.datasets.transforms import PackDetInputs
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import HOOKS, MODELS, DefaultScope
from mmengine.structures import InstanceData
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmdense.engine.testing import enable_dump, enable_tta, enable_visualization
from mmdense.errors import UserError
from mmdense.files import config_root

CONFIGS = {
    'mmpretrain': 'paca_digits',
    'mmdet': 'mask_rcnn_paca_digits',
    'mmseg': 'upernet_paca_digits',
}
SIDE = 128


@cache
def read(scope: str) -> Config:
    return Config.fromfile(config_root() / 'digits' / f'{CONFIGS[scope]}.py')


def load(scope: str) -> Config:
    return deepcopy(read(scope))


@pytest.fixture(scope='module')
def picture(tmp_path_factory) -> Path:
    """Noise: a picture that is not its mirror image."""
    path = tmp_path_factory.mktemp('picture') / '0.png'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    return path


def make_views(cfg: Config, path: Path) -> dict:
    """What the augmented pipeline makes of a picture without annotations: a batch of one."""
    pipeline = Config(dict(steps=cfg.test_dataloader.dataset.pipeline)).steps
    for step in pipeline[:-1]:
        assert step['type'] != 'TestTimeAug'
    steps = [step for step in pipeline if 'LoadAnnotations' not in step['type']]
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return pseudo_collate([Compose(steps)(dict(img_path=str(path), img_id=0, seg_fields=[]))])


def run(cfg: Config, module: nn.Module, batch: dict) -> object:
    """The merged prediction of ``module`` in the wrapper that the config now has for its model."""
    wrapper = {k: v for k, v in cfg.model.items() if k != 'module'}
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        merge = MODELS.build(dict(wrapper, module=module))
    return merge.test_step(batch)[0]


def mean_and_std(cfg: dict) -> list[Tensor]:
    return [torch.tensor(cfg['data_preprocessor'][key])[:, None, None] for key in ('mean', 'std')]


def upsample(logits: Tensor) -> Tensor:
    return nn.functional.interpolate(logits, (SIDE, SIDE), mode='bilinear', align_corners=False)


@pytest.mark.parametrize('scope', CONFIGS)
def test_two_views_the_second_is_the_mirror_image(scope, picture):
    cfg = load(scope)
    own, model = cfg.test_dataloader.dataset.pipeline, cfg.model.to_dict()
    enable_tta(cfg)
    batch = make_views(cfg, picture)
    (first,), (second,) = batch['inputs']
    expected = torch.from_numpy(cv2.imread(str(picture))).permute(2, 0, 1)
    assert torch.equal(first, expected)
    assert torch.equal(second, expected.flip(2))
    flips = [samples[0].metainfo.get('flip') for samples in batch['data_samples']]
    assert scope == 'mmpretrain' or flips == [False, True]
    assert cfg.model.module.to_dict() == model
    assert [s['type'] for s in own][:-1] == [s['type'] for s in cfg.tta_pipeline][:-1]


class FindBright(nn.Module):
    """A detector of the bright square, which also always sees something at the left border."""

    def test_step(self, data: dict) -> list[DetDataSample]:
        (image,), (sample,) = data['inputs'], data['data_samples']
        rows, columns = torch.nonzero(image.float().mean(dim=0) > 128, as_tuple=True)
        bright = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor([bright, [0, 0, 10, 20]], dtype=torch.float32),
            scores=torch.tensor([0.9, 0.5]),
            labels=torch.tensor([3, 1]),
            masks=torch.zeros(2, *image.shape[1:]),
        )
        return [sample]


def test_boxes_are_mirrored_back(tmp_path):
    """What is in the picture is found once; what only the model sees lies on both sides."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[30:50, 70:110] = 255
    cv2.imwrite(str(tmp_path / '0.png'), image)
    cfg = load('mmdet')
    enable_tta(cfg)
    found = run(cfg, FindBright(), make_views(cfg, tmp_path / '0.png')).pred_instances
    by_label = {label: found.bboxes[found.labels == label].tolist() for label in (1, 3)}
    assert by_label[3] == [[70, 30, 110, 50]]
    assert sorted(by_label[1]) == [[0, 0, 10, 20], [SIDE - 10, 0, SIDE, 20]]
    assert 'masks' not in found
    assert cfg.test_evaluator.metric == 'bbox'


class FindMany(nn.Module):
    """A detector of 60 small boxes in a grid, of one class."""

    def test_step(self, data: dict) -> list[DetDataSample]:
        corner = torch.cartesian_prod(*[torch.arange(8.0)] * 2)[:60] * 16 + 1
        sample = data['data_samples'][0]
        sample.pred_instances = InstanceData(
            bboxes=torch.cat([corner, corner + 5], dim=1),
            scores=torch.linspace(0.1, 0.9, 60),
            labels=torch.zeros(60, dtype=torch.long),
        )
        return [sample]


def test_a_hundred_boxes_are_kept(picture):
    cfg = load('mmdet')
    enable_tta(cfg)
    found = run(cfg, FindMany(), make_views(cfg, picture)).pred_instances
    assert len(found) == 100  # of 120, none of which overlap


class FindTwo(nn.Module):
    """A detector of two boxes of one class that share so many of their 100 pixels."""

    def __init__(self, shared: float) -> None:
        super().__init__()
        self.shared = shared

    def test_step(self, data: dict) -> list[DetDataSample]:
        sample = data['data_samples'][0]
        middle, shift = SIDE / 2, 10 - self.shared / 10
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor(
                [[middle - 5, 0, middle + 5, 10], [middle - 5, shift, middle + 5, shift + 10]]
            ),
            scores=torch.tensor([0.9, 0.8]),
            labels=torch.zeros(2, dtype=torch.long),
        )
        return [sample]


@pytest.mark.parametrize('shared, kept', [(70, 1), (64, 2)])
def test_boxes_merge_from_one_half_on(shared, kept, picture):
    """70 / 130 is more than one half, 64 / 136 less; their mirror images are the same."""
    cfg = load('mmdet')
    enable_tta(cfg)
    assert len(run(cfg, FindTwo(shared), make_views(cfg, picture)).pred_instances) == kept


class ScoreLeft(nn.Module):
    """A classifier that weighs only the left half."""

    def test_step(self, data: dict) -> list[DataSample]:
        image = data['inputs'][0].float()
        share = image[:, :, : SIDE // 2].mean() / 255
        return [DataSample().set_pred_score(torch.stack([share, 1 - share]))]


def test_scores_are_the_mean_of_both_views(picture):
    cfg = load('mmpretrain')
    enable_tta(cfg)
    scores = run(cfg, ScoreLeft(), make_views(cfg, picture)).pred_score
    mean = cv2.imread(str(picture)).mean() / 255  # of the left half and the right one
    assert scores.tolist() == pytest.approx([mean, 1 - mean], rel=1e-5)


def test_label_maps_are_mirrored_back(picture):
    """Of a whole segmentor: softmax of the image's logits and, back in place, of the mirrored."""
    cfg = load('mmseg')
    head = dict(type='FCNHead', in_channels=32, in_index=3, channels=8, num_convs=1, num_classes=5)
    cfg.model.backbone, cfg.model.decode_head = dict(TINY['MSFViT']), head
    plain = deepcopy(cfg.model)
    enable_tta(cfg)
    batch = make_views(cfg, picture)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(plain).eval()
    nn.init.normal_(model.decode_head.conv_seg.weight)
    with torch.no_grad():
        found = run(cfg, model, batch)
        image = torch.from_numpy(cv2.imread(str(picture))[..., ::-1].copy()).permute(2, 0, 1)
        mean, std = mean_and_std(plain)
        x = ((image - mean) / std)[None]
        views = [upsample(model(v, mode='tensor')).softmax(dim=1) for v in (x, x.flip(3))]
    expected = (views[0] + views[1].flip(3)).argmax(dim=1)
    assert len(expected.unique()) > 1
    assert not torch.equal(expected, views[0].argmax(dim=1))
    assert torch.equal(found.pred_sem_seg.data.view_as(expected), expected)


def test_augmentation_of_the_config_has_its_way():
    cfg = load('mmdet')
    own = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=[])]
    cfg.tta_pipeline, cfg.tta_model = own, dict(type='mmdense.BoxTTAModel', tta_cfg=dict(a=1))
    enable_tta(cfg)
    assert [step.to_dict() for step in cfg.test_dataloader.dataset.pipeline] == own
    assert cfg.model.tta_cfg == dict(a=1)


def test_keys_that_a_config_packs_stay():
    cfg = load('mmdet')
    own = cfg.test_dataloader.dataset.pipeline
    own[-1]['meta_keys'] = ('img_id', 'ori_shape', 'mine')
    enable_tta(cfg)
    pack = cfg.tta_pipeline[-1]['transforms'][-1][0]
    assert pack['meta_keys'] == ('img_id', 'ori_shape', 'mine', 'flip', 'flip_direction')
    assert own[-1]['meta_keys'] == ('img_id', 'ori_shape', 'mine')  # others may share it


def test_keys_that_are_packed_by_default():
    cfg = load('mmdet')
    cfg.test_dataloader.dataset.pipeline[-1].pop('meta_keys', None)
    enable_tta(cfg)
    default = signature(PackDetInputs).parameters['meta_keys'].default
    assert cfg.tta_pipeline[-1]['transforms'][-1][0]['meta_keys'] == default


@pytest.mark.parametrize(
    'scope, flag, place',
    [('mmpretrain', 'enable', 'out_dir'), ('mmdet', 'draw', 'test_out_dir'), ('mmseg', 'draw', '')],
)
def test_pictures_of_predictions(scope, flag, place, tmp_path, monkeypatch):
    """Every picture, in the hook's words, below the folder named and not below the work dir."""
    monkeypatch.chdir(tmp_path)
    cfg = load(scope)
    enable_visualization(cfg, show=False, show_dir='shown', wait_time=3)
    hook = cfg.default_hooks.visualization
    assert (hook[flag], hook.show, hook.wait_time, hook.interval) == (True, False, 3, 1)
    folder = hook[place] if place else cfg.visualizer.save_dir
    assert folder == str(tmp_path / 'shown')
    arguments = set(signature(HOOKS.get(f'{scope}.{hook.type}')).parameters)
    assert 'kwargs' in arguments or set(hook) - {'type', '_scope_'} <= arguments


@pytest.mark.parametrize('scope', CONFIGS)
def test_pictures_in_a_window(scope):
    cfg = load(scope)
    enable_visualization(cfg, show=True, show_dir=None, wait_time=0)
    hook = cfg.default_hooks.visualization
    assert hook.show and not {'out_dir', 'test_out_dir'} & set(hook)
    del cfg.default_hooks['visualization']
    with pytest.raises(UserError, match=r'need default_hooks\.visualization'):
        enable_visualization(cfg, show=True, show_dir=None, wait_time=0)


@pytest.mark.parametrize(
    'scope, dump', [('mmpretrain', 'DumpResults'), ('mmdet', 'DumpDetResults')]
)
@pytest.mark.parametrize('several', [False, True])
def test_predictions_go_to_a_pickle(scope, dump, several):
    """Beside the metrics, which stay."""
    cfg = load(scope)
    metrics = [cfg.test_evaluator] if not several else [cfg.test_evaluator, dict(type='Other')]
    cfg.test_evaluator = metrics if several else metrics[0]
    before = [dict(m) for m in metrics]
    enable_dump(cfg, 'out/found.pkl')
    *kept, added = cfg.test_evaluator
    assert [dict(m) for m in kept] == before
    assert added == dict(type=dump, out_file_path='out/found.pkl')
    enable_dump(cfg, 'found.pickle')
    with pytest.raises(UserError, match=r"--out 'found.json': predictions are written to a .pkl"):
        enable_dump(cfg, 'found.json')


def test_predictions_of_a_segmentor_go_to_a_folder():
    cfg = load('mmseg')
    before = dict(cfg.test_evaluator)
    enable_dump(cfg, 'maps')
    assert cfg.test_evaluator == ConfigDict(before, output_dir='maps', keep_results=True)


@pytest.mark.parametrize('show, folder', [(True, None), (False, 'pictures')])
def test_a_classifiers_views_are_not_drawn(show, folder):
    """MMPretrain's hook draws its input, which is two views there."""
    cfg = load('mmpretrain')
    enable_tta(cfg)
    with pytest.raises(UserError, match='--tta shows it every picture twice: leave one of them'):
        enable_visualization(cfg, show, folder, 0)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_augmented_predictions_are_written_and_drawn_too(scope, tmp_path):
    cfg = load(scope)
    enable_tta(cfg)
    enable_visualization(cfg, False, str(tmp_path / 'pictures'), 0)
    enable_dump(cfg, str(tmp_path / 'predictions.pkl'))
    assert 'pictures' in str(cfg.default_hooks.visualization) + str(cfg.get('visualizer'))
    assert 'predictions.pkl' in str(cfg.test_evaluator)
