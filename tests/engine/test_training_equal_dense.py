"""Twenty steps of the published COCO and ADE20K recipes, beside a plain statement of them.

As test_training_equal.py does for ImageNet: PyTorch's AdamW with what decays by its name, the
learning rate by its formula, the segmentors' losses too; detectors have the loss of the toolbox. An
epoch is one iteration, and the warm-up is five, so that all of a schedule is seen.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import FAMILY, TINY, load_config
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import DATASETS, MODELS
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import Dataset
from twenty_steps import STEPS, run_steps

BATCH, SIDE, WARM_UP = 2, 64, 5
IGNORED = 255
WIDTH = 8  # of necks and heads


class Recipe(NamedTuple):
    """Learning rate and decay; the part of the rate that the warm-up starts at; whether tensors
    with `norm` in their name do not decay; stochastic depth.
    """

    lr: float
    decay: float
    start: float
    spares_norms: bool = True
    drop_path: float = 0.1


COCO = Recipe(1e-4, 0.05, 1e-3)
ADE20K = Recipe(6e-5, 0.01, 1e-6)
RECIPES = {
    'paca/mask_rcnn_paca_s_1x': COCO,
    'groupmixformer/mask_rcnn_groupmixformer_s_1x': COCO._replace(drop_path=0.2),
    'fcvit/mask_rcnn_fcvit_b12_1x': Recipe(2e-4, 1e-4, 1e-3, spares_norms=False),
    'msf/mask_rcnn_msf_s_1x': COCO._replace(drop_path=0.0),
    'paca/upernet_paca_s_160k': ADE20K,
    'msf/upernet_msf_s_160k': ADE20K._replace(drop_path=0.0),
}


def make_sample(is_detector: bool, index: int) -> dict:
    """A picture of noise with two boxes and their masks, or with labels of pixels."""
    numbers = np.random.default_rng(index)
    picture = torch.from_numpy(numbers.standard_normal((3, SIDE, SIDE)))
    shape = dict(img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE), pad_shape=(SIDE, SIDE))
    if not is_detector:
        labels = torch.from_numpy(numbers.integers(0, 150, (1, SIDE, SIDE)))
        labels[:, :8] = IGNORED
        sample = SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=shape)
        return dict(inputs=picture, data_samples=sample)
    corners = numbers.integers(0, SIDE // 2, (2, 2))
    boxes = np.concatenate([corners, corners + numbers.integers(16, 32, (2, 2))], axis=1)
    masks = np.zeros((2, SIDE, SIDE), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes):
        mask[top:bottom, left:right] = 1
    sample = DetDataSample(
        metainfo=dict(shape, scale_factor=(1.0, 1.0), batch_input_shape=(SIDE,) * 2)
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.from_numpy(boxes).double(),
        labels=torch.from_numpy(numbers.integers(0, 80, 2)),
        masks=BitmapMasks(masks, SIDE, SIDE),
    )
    return dict(inputs=picture, data_samples=sample)


def make_batch(is_detector: bool, step: int) -> tuple[Tensor, list]:
    samples = [make_sample(is_detector, BATCH * step + i) for i in range(BATCH)]
    pictures = torch.stack([sample['inputs'] for sample in samples])
    return pictures, [sample['data_samples'] for sample in samples]


@DATASETS.register_module()
class DenseBatches(Dataset):
    """A batch as one sample; each epoch asks for the next one."""

    metainfo: dict = {}

    def __init__(self, is_detector: bool) -> None:
        self.is_detector, self.step = is_detector, -1

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict:
        self.step += 1
        pictures, samples = make_batch(self.is_detector, self.step)
        return dict(inputs=pictures, data_samples=samples)


@MODELS.register_module()
class DenseDoubles(BaseDataPreprocessor):
    """The toolboxes' preprocessors without their cast to float32."""

    def __init__(self) -> None:
        super().__init__()
        self.step = 0

    def forward(self, data: dict, training: bool = False) -> dict:
        torch.manual_seed(self.step)  # both sides draw from here on
        self.step += 1
        samples = [sample for (sample,) in data['data_samples']]
        return dict(inputs=data['inputs'][0], data_samples=samples)


def shrink(cfg: Config, name: str) -> None:
    """The recipe's network and heads as small as can be."""
    drop_path = RECIPES[name].drop_path
    tiny = {**TINY[next(iter(FAMILY[name.split('/')[0]].tiny))], 'drop_path_rate': drop_path}
    if 'num_layers' in tiny['arch']:  # a pyramid of four layers
        tiny.update(arch={**tiny['arch'], 'num_layers': 4}, out_indices=(0, 1, 2, 3))
    cfg.model.backbone = tiny
    channels = [feature['num_chs'] for feature in MODELS.build(tiny).feature_info]
    neck = cfg.model.get('neck')
    parts = neck if isinstance(neck, list) else [neck] if neck else []
    for part in parts:
        if 'in_channels' in part:
            part.in_channels = channels
        if 'embed_dim' in part:
            part.embed_dim = channels[0]
    if 'roi_head' in cfg.model:
        rpn, roi = cfg.model.rpn_head, cfg.model.roi_head
        parts[-1].out_channels = WIDTH
        rpn.update(in_channels=WIDTH, feat_channels=WIDTH)
        roi.bbox_roi_extractor.out_channels = roi.mask_roi_extractor.out_channels = WIDTH
        roi.bbox_head.update(in_channels=WIDTH, fc_out_channels=WIDTH)
        roi.mask_head.update(in_channels=WIDTH, conv_out_channels=WIDTH)
    if 'decode_head' in cfg.model:
        cfg.model.decode_head.update(in_channels=channels, channels=WIDTH)
        if 'auxiliary_head' in cfg.model:
            cfg.model.auxiliary_head.update(in_channels=channels[2], channels=WIDTH)


def run_config(name: str, folder: str) -> tuple[nn.Module, nn.Module, list[float]]:
    """The recipe's own config: the model untrained, the model after 20 steps, and its losses."""
    cfg = load_config(name)
    is_detector = 'roi_head' in cfg.model
    shrink(cfg, name)
    cfg.model.data_preprocessor = dict(type='DenseDoubles')
    warm_up, decay = cfg.param_scheduler
    warm_up.end = WARM_UP
    if not is_detector:
        decay.update(begin=WARM_UP, end=STEPS)
    dataset = dict(type='DenseBatches', is_detector=is_detector)
    untrained, runner, observer = run_steps(cfg, folder, dataset)
    return untrained, runner.model, observer.losses


def rate(recipe: Recipe, is_detector: bool, step: int) -> float:
    """A line in the warm-up; tenths after 8 and 11 epochs on COCO, a line to 0, which the last step
    has, on ADE20K."""
    rise = min(step / (WARM_UP - 1), 1)
    factor = recipe.start + (1 - recipe.start) * rise
    if is_detector:
        return recipe.lr * factor * 0.1 ** ((step >= 8) + (step >= 11))
    return recipe.lr * (factor if step < WARM_UP else (STEPS - 1 - step) / (STEPS - 1 - WARM_UP))


def segment(model: nn.Module, pictures: Tensor, samples: list) -> Tensor:
    """Cross-entropy on upsampled logits; 0.4 times that of the auxiliary head besides."""
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
    maps = model.extract_feat(pictures)
    total = 0
    for head, weight in ((model.decode_head, 1.0), (getattr(model, 'auxiliary_head', None), 0.4)):
        if head is not None:
            logits = F.interpolate(head(maps), size=labels.shape[1:], mode='bilinear')
            loss = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction='sum')
            total = total + weight * loss / labels.numel()
    return total


def detect(model: nn.Module, pictures: Tensor, samples: list) -> Tensor:
    """The sum of what MMDetection calls losses."""
    found = model.loss(pictures, samples)
    parts = tree_leaves([found[key] for key in found if 'loss' in key])
    return sum(part.mean() for part in parts)


def train_plainly(
    model: nn.Module, recipe: Recipe, is_detector: bool, find_loss: Callable
) -> list[float]:
    """The recipe in PyTorch's words."""
    groups = []
    for name, p in model.named_parameters():
        spared = recipe.spares_norms and 'norm' in name
        groups.append(dict(params=[p], weight_decay=0.0 if spared else recipe.decay))
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, foreach=False)
    model.train()
    losses = []
    for step in range(STEPS):
        torch.manual_seed(step)
        loss = find_loss(model, *make_batch(is_detector, step))
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group['lr'] = rate(recipe, is_detector, step)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.slow
@pytest.mark.parametrize('name', RECIPES)
def test_first_dense_steps(name, tmp_path):
    recipe = RECIPES[name]
    model, found, losses = run_config(name, str(tmp_path))
    is_detector = hasattr(model, 'roi_head')
    wanted = train_plainly(model, recipe, is_detector, detect if is_detector else segment)
    assert len(losses) == STEPS and losses[0] != losses[-1]
    assert losses == pytest.approx(wanted, rel=1e-10)
    for key, p in model.named_parameters():
        torch.testing.assert_close(found.get_parameter(key), p, rtol=1e-8, atol=1e-11, msg=key)
