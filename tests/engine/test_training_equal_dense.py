"""Twenty steps of the published COCO and ADE20K recipes, beside a plain statement of them.

As test_training_equal.py does for ImageNet: PyTorch's AdamW with what decays and what learns
faster by its name, the learning rate by its formula, the losses of UperNet, Semantic FPN and the
PaCa head too; detectors and Mask2Former have the loss of the toolbox. An epoch is one iteration,
and the warm-up is five, so that all of a schedule is seen.
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
from mmengine.config import Config, ConfigDict
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


def find_step_rate(step: int) -> float:
    """COCO, after the warm-up: tenths after 8 and 11 epochs."""
    return 0.1 ** ((step >= 8) + (step >= 11))


def find_line_rate(step: int) -> float:
    """ADE20K: a line from the end of the warm-up to 0, which the last step has."""
    return min(1, (STEPS - 1 - step) / (STEPS - 1 - WARM_UP))


def find_power_rate(step: int) -> float:
    """Mask2Former and Semantic FPN: a power of the line, from the first step on."""
    return (1 - step / (STEPS - 1)) ** 0.9


def has_norm_in_name(name: str, module: nn.Module) -> bool:
    return 'norm' in name


def spare_nothing(name: str, module: nn.Module) -> bool:
    return False


def is_of_mask2former(name: str, module: nn.Module) -> bool:
    """The norms of its head and the decoder's embeddings; the pixel decoder's own does decay."""
    is_norm = isinstance(module, (nn.LayerNorm, nn.GroupNorm))
    is_embedding = any(part in name for part in ('query_embed', 'query_feat', 'level_embed'))
    return not name.startswith('backbone') and (is_norm or is_embedding)


class Recipe(NamedTuple):
    """Learning rate and decay; the part of the rate that the warm-up starts at, 1 where there is
    none; what comes of the rate; which parameters (by name and module) do not decay; factors of
    the rate by a part of names; the norm that gradients are clipped to; stochastic depth.
    """

    lr: float
    decay: float
    start: float
    find_factor: Callable[[int], float]
    is_spared: Callable[[str, nn.Module], bool] = has_norm_in_name
    factors: dict[str, float] = {}
    clip: float | None = None
    drop_path: float = 0.1


MASK2FORMER = 'paca/mask2former_paca_s_160k'
COCO = Recipe(1e-4, 0.05, 1e-3, find_step_rate)
ADE20K = Recipe(6e-5, 0.01, 1e-6, find_line_rate)
RECIPES = {
    'paca/mask_rcnn_paca_s_1x': COCO,
    'groupmixformer/mask_rcnn_groupmixformer_s_1x': COCO._replace(drop_path=0.2),
    'fcvit/mask_rcnn_fcvit_b12_1x': Recipe(2e-4, 1e-4, 1e-3, find_step_rate, spare_nothing),
    'msf/mask_rcnn_msf_s_1x': COCO._replace(drop_path=0.0),
    'paca/upernet_paca_s_160k': ADE20K,
    'groupmixformer/upernet_groupmixformer_s_160k': ADE20K._replace(drop_path=0.2),
    'fcvit/sem_fpn_fcvit_b12_40k': Recipe(
        2e-4, 1e-4, 1, find_power_rate, spare_nothing, drop_path=0.0
    ),
    'msf/upernet_msf_s_160k': ADE20K._replace(drop_path=0.0),
    'paca/paca_head_paca_s_160k': ADE20K._replace(
        factors={'decode_head': 10, 'clustering.assign': 10}
    ),
    MASK2FORMER: Recipe(
        1e-4, 0.05, 1, find_power_rate, is_of_mask2former, {'backbone': 0.1}, clip=0.01
    ),
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
    if 'transformer_decoder' in cfg.model.get('decode_head', {}):
        shrink_mask2former(cfg.model.decode_head, channels)
    elif 'decode_head' in cfg.model:
        if name.partition('/')[2].startswith('sem_fpn'):
            neck.out_channels, channels = WIDTH, 4 * [WIDTH]
        cfg.model.decode_head.update(in_channels=channels, channels=WIDTH)
        if 'auxiliary_head' in cfg.model:
            cfg.model.auxiliary_head.update(in_channels=channels[2], channels=WIDTH)


def shrink_mask2former(head: ConfigDict, channels: list[int]) -> None:
    head.update(in_channels=channels, feat_channels=WIDTH, out_channels=WIDTH, num_queries=5)
    head.positional_encoding.num_feats = WIDTH // 2
    head.train_cfg.num_points = 64
    pixels, decoder = head.pixel_decoder, head.transformer_decoder
    pixels.norm_cfg.num_groups = 2
    pixels.positional_encoding.num_feats = WIDTH // 2
    pixels.encoder.num_layers, decoder.num_layers = 1, 2
    for layer in (pixels.encoder.layer_cfg, decoder.layer_cfg):
        for part in layer.values():
            part.embed_dims = WIDTH
        layer.ffn_cfg.feedforward_channels = WIDTH
    for attention in (decoder.layer_cfg.self_attn_cfg, decoder.layer_cfg.cross_attn_cfg):
        attention.num_heads = 2
    pixels.encoder.layer_cfg.self_attn_cfg.num_heads = 2


def run_config(name: str, folder: str) -> tuple[nn.Module, nn.Module, list[float]]:
    """The recipe's own config: the model untrained, the model after 20 steps, and its losses."""
    cfg = load_config(name)
    is_detector = 'roi_head' in cfg.model
    shrink(cfg, name)
    cfg.model.data_preprocessor = dict(type='DenseDoubles')
    *warm_up, decay = cfg.param_scheduler
    for line in warm_up:
        line.end = WARM_UP
    if not is_detector:
        decay.update(begin=WARM_UP if warm_up else 0, end=STEPS)
    dataset = dict(type='DenseBatches', is_detector=is_detector)
    untrained, runner, observer = run_steps(cfg, folder, dataset)
    return untrained, runner.model, observer.losses


def rate(recipe: Recipe, step: int) -> float:
    """A line in the warm-up, times what follows it."""
    rise = min(step / (WARM_UP - 1), 1)
    return recipe.lr * (recipe.start + (1 - recipe.start) * rise) * recipe.find_factor(step)


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


def segment_by_classes(model: nn.Module, pictures: Tensor, samples: list) -> Tensor:
    """The PaCa head: cross-entropy of what it predicts and 0.4 times that of its clusters."""
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
    total = 0
    maps = model.extract_feat(pictures)
    for logits, weight in zip(model.decode_head.get_logits(maps), (1.0, 0.4)):
        logits = F.interpolate(logits, size=labels.shape[1:], mode='bilinear')
        total = total + weight * F.cross_entropy(logits, labels, ignore_index=IGNORED)
    return total


def sum_losses(model: nn.Module, pictures: Tensor, samples: list) -> Tensor:
    """The sum of what the toolbox calls losses."""
    found = model.loss(pictures, samples)
    parts = tree_leaves([found[key] for key in found if 'loss' in key])
    return sum(part.mean() for part in parts)


def train_plainly(
    model: nn.Module, recipe: Recipe, is_detector: bool, find_loss: Callable
) -> list[float]:
    """The recipe in PyTorch's words."""
    groups = []
    for name, p in model.named_parameters():
        is_spared = recipe.is_spared(name, model.get_submodule(name.rpartition('.')[0]))
        factor = next((recipe.factors[part] for part in recipe.factors if part in name), 1)
        decay = 0.0 if is_spared else recipe.decay
        groups.append(dict(params=[p], weight_decay=decay, factor=factor))
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, foreach=False)
    model.train()
    losses = []
    for step in range(STEPS):
        torch.manual_seed(step)
        loss = find_loss(model, *make_batch(is_detector, step))
        optimizer.zero_grad()
        loss.backward()
        if recipe.clip is not None:
            norm = torch.stack([p.grad.square().sum() for p in model.parameters()]).sum().sqrt()
            assert norm > recipe.clip
            for p in model.parameters():
                p.grad *= recipe.clip / (norm + 1e-6)
        for group in optimizer.param_groups:
            group['lr'] = group['factor'] * rate(recipe, step)
        optimizer.step()
        losses.append(loss.item())
    return losses


def pick_loss(name: str) -> Callable:
    if 'upernet' in name or 'sem_fpn' in name:
        return segment
    return segment_by_classes if 'paca_head' in name else sum_losses


def compare(name: str, folder: str) -> None:
    """Losses and weights of a recipe's config with those of its statement."""
    recipe = RECIPES[name]
    model, found, losses = run_config(name, folder)
    is_detector = hasattr(model, 'roi_head')
    wanted = train_plainly(model, recipe, is_detector, pick_loss(name))
    assert len(losses) == STEPS and losses[0] != losses[-1]
    assert losses == pytest.approx(wanted, rel=1e-10)
    for key, p in model.named_parameters():
        torch.testing.assert_close(found.get_parameter(key), p, rtol=1e-8, atol=1e-11, msg=key)
    for key, buffer in model.named_buffers():
        if 'running' in key:
            torch.testing.assert_close(found.get_buffer(key), buffer)


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(RECIPES.keys() - {MASK2FORMER}))
def test_first_dense_steps(name, tmp_path):
    compare(name, str(tmp_path))


@pytest.fixture
def doubles(monkeypatch):
    """Heads of the toolboxes make points and targets of float32; here they make doubles."""
    monkeypatch.setattr(torch.Tensor, 'float', torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.slow
@pytest.mark.usefixtures('doubles')
def test_first_steps_of_mask2former(tmp_path):
    compare(MASK2FORMER, str(tmp_path))
