"""The first twenty steps of the published ImageNet recipes, beside a plain statement of them.

The statement has what the papers and their authors' code say and knows PyTorch alone: AdamW with
two groups, the learning rate by its formula, mixup or cutmix, smoothed targets, clipping,
stochastic depth, and the average of the weights, which all take from `_base_/ema.py`. An epoch is
one iteration, so that a warm-up ends within the twenty; who clips, clips to less, so that it counts
in each step. The networks are tiny, of float64; both sides draw the same numbers.
"""

import math
import re
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import FAMILY, TINY, load_config
from mmengine.model import BaseDataPreprocessor
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS
from mmpretrain.models.utils.batch_augments import RandomBatchAugment
from mmpretrain.structures import DataSample
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import Dataset
from twenty_steps import STEPS, Observer, run_steps

BATCH, SIDE, CLASSES = 4, 64, 5
CLIP = 0.1  # in place of the recipes' norms, which gradients of tiny networks may not reach
SMOOTHING = 0.1
EMA = 2e-4
LAYER_DECAY = 0.7


class Recipe(NamedTuple):
    """Learning rate, epochs of warm-up and the part of the rate it starts at, epochs and the rate
    at their end; the norm that gradients are clipped to; alpha of mixup and of cutmix; stochastic
    depth; whether vectors (norms, biases) decay as matrices do."""

    lr: float
    warm_up: int
    start: float
    epochs: int
    end: float
    clip: float | None
    mixup: float
    cutmix: float
    drop_path: float
    decays_vectors: bool = False


RECIPES = {
    'paca/paca_s_in1k': Recipe(1e-3, 5, 1e-3, 300, 1e-5, None, 0.8, 1.0, 0.1),
    'groupmixformer/groupmixformer_s_in1k': Recipe(5e-4, 20, 1e-3, 300, 5e-6, 5, 0.8, 1.0, 0.2),
    'fcvit/fcvit_b12_in1k': Recipe(1e-3, 5, 1e-3, 300, 1e-6, None, 0.8, 1.0, 0.1),
    'msf/msf_s_in1k': Recipe(1e-3, 10, 0.033, 100, 0, 1, 0.2, 0.2, 0.0, True),
}


def make_batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    images = torch.randn(BATCH, 3, SIDE, SIDE, dtype=torch.float64, generator=generator)
    return images, torch.randint(CLASSES, (BATCH,), generator=generator)


def seed(step: int) -> None:
    """Both sides draw from here on: how to mix, the order, the blocks that are left out."""
    np.random.seed(step)
    torch.manual_seed(step)


@DATASETS.register_module()
class Batches(Dataset):
    """A batch as one sample; each epoch asks for the next one."""

    metainfo: dict = {}

    def __init__(self) -> None:
        self.step = -1

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict:
        self.step += 1
        images, labels = make_batch(self.step)
        samples = [DataSample().set_gt_label(label) for label in labels]
        return dict(inputs=images, data_samples=samples)


@MODELS.register_module()
class Doubles(BaseDataPreprocessor):
    """mmpretrain's preprocessor without its cast to float32."""

    def __init__(self, batch_augments: dict | None = None, **_: object) -> None:
        super().__init__()
        self.augment = RandomBatchAugment(**batch_augments)
        self.step = 0

    def forward(self, data: dict, training: bool = False) -> dict:
        (images,), samples = data['inputs'], [sample for (sample,) in data['data_samples']]
        seed(self.step)
        self.step += 1
        scores = F.one_hot(torch.cat([s.gt_label for s in samples]), CLASSES)
        images, scores = self.augment(images, scores)
        for sample, score in zip(samples, scores):
            sample.set_gt_score(score)
        return dict(inputs=images, data_samples=samples)


def run_config(name: str, folder: str, layer_decay: bool) -> tuple[nn.Module, dict, Observer]:
    """The recipe's own config with a tiny network: it untrained, and what 20 steps end with."""
    cfg = load_config(name)
    assert cfg.model.head.loss.label_smooth_val == SMOOTHING
    tiny = dict(TINY[next(iter(FAMILY[name.split('/')[0]].tiny))])
    drop_path = RECIPES[name].drop_path
    assert cfg.model.backbone.get('drop_path_rate', 0.0) == drop_path
    cfg.model.backbone = {**tiny, 'drop_path_rate': drop_path}
    is_pyramid = cfg.model.get('neck') is not None
    if not is_pyramid:
        cfg.model.backbone['out_type'] = 'avg_featmap'
    channels = MODELS.build(cfg.model.backbone).feature_info[-1]['num_chs']
    if is_pyramid:
        cfg.model.backbone['out_indices'] = (-1,)
    cfg.model.head.update(num_classes=CLASSES, in_channels=channels)
    cfg.model.data_preprocessor = dict(
        type='Doubles', batch_augments=dict(cfg.model.pop('train_cfg'))
    )
    if layer_decay:
        cfg.optim_wrapper.constructor = 'mmdense.LayerDecayOptimWrapperConstructor'
        cfg.optim_wrapper.paramwise_cfg.layer_decay_rate = LAYER_DECAY
    assert (cfg.optim_wrapper.get('clip_grad') or {}).get('max_norm') == RECIPES[name].clip
    if RECIPES[name].clip is not None:
        cfg.optim_wrapper.clip_grad.max_norm = CLIP
    hooks = load_config('_base_/ema').custom_hooks
    untrained, runner, observer = run_steps(cfg, folder, dict(type='Batches'), *hooks)
    average = next(hook.ema_model for hook in runner.hooks if hasattr(hook, 'ema_model'))
    return untrained, dict(weights=runner.model, average=average.module), observer


def rate(recipe: Recipe, step: int, factor: float = 1) -> float:
    """A line up to the end of the warm-up, then half a cosine to the same end for all layers."""
    recipe = recipe._replace(lr=recipe.lr * factor)
    if step < recipe.warm_up:
        rise = step / (recipe.warm_up - 1)
        return recipe.lr * (recipe.start + (1 - recipe.start) * rise)
    passed = (step - recipe.warm_up) / (recipe.epochs - recipe.warm_up)
    return recipe.end + (recipe.lr - recipe.end) * (1 + math.cos(math.pi * passed)) / 2


def mix(recipe: Recipe, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al., 2018) or cutmix (Yun et al., 2019), each as likely."""
    targets = F.one_hot(labels, CLASSES).float()
    is_cut = np.random.choice(2)
    alpha = recipe.cutmix if is_cut else recipe.mixup
    share = np.random.beta(alpha, alpha)
    order = torch.randperm(len(images))
    if is_cut:
        side = int(SIDE * math.sqrt(1 - share))
        y, x = np.random.randint(0, SIDE), np.random.randint(0, SIDE)
        top, bottom = max(y - side // 2, 0), min(y + side // 2, SIDE)
        left, right = max(x - side // 2, 0), min(x + side // 2, SIDE)
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = images[order][..., top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / SIDE**2
    else:
        mixed = share * images + (1 - share) * images[order]
    return mixed, share * targets + (1 - share) * targets[order]


def get_depth(key: str, depths: list[int]) -> int:
    """0 for the stem, then the blocks one by one, then what is behind them."""
    found = re.match(r'backbone\.stages\.(\d+)\.(\w+)(?:\.(\d+))?', key)
    if not found:
        return sum(depths) + 1
    stage, part, block = int(found[1]), found[2], found[3]
    before = sum(depths[:stage])
    if part == 'downsample':
        return before + (stage > 0)
    return before + depths[stage] if part == 'norm' else before + int(block) + 1


class StochasticDepth(nn.Module):
    """Leaves a branch out, sample by sample; what stays is scaled (Huang et al., ECCV 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0:
            return x
        stays = torch.rand(len(x), dtype=x.dtype) >= self.rate
        return x / (1 - self.rate) * stays.view(-1, *(1,) * (x.ndim - 1))


def state_depths(model: nn.Module, rate: float) -> None:
    """Put :class:`StochasticDepth` in place of a model's own: linear from 0 to the last block's."""
    blocks = [module for module in model.modules() if hasattr(module, 'drop_path')]
    for block, rate_here in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist()):  # float32
        block.drop_path = StochasticDepth(rate_here)


def train_plainly(model: nn.Module, recipe: Recipe, layer_decay: bool) -> tuple[dict, list, list]:
    """The recipe in PyTorch's words."""
    groups = []
    depths = [len(stage.blocks) for stage in model.backbone.stages] if layer_decay else []
    for key, p in model.named_parameters():
        factor = LAYER_DECAY ** (sum(depths) + 1 - get_depth(key, depths)) if layer_decay else 1
        decay = 0.05 if p.ndim > 1 or recipe.decays_vectors else 0.0
        groups.append(dict(params=[p], weight_decay=decay, factor=factor))
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8, foreach=False)
    state_depths(model, recipe.drop_path)
    model.train()
    average, losses, rates = None, [], []
    for step in range(STEPS):
        images, labels = make_batch(step)
        seed(step)
        images, targets = mix(recipe, images, labels)
        targets = targets * (1 - SMOOTHING) + SMOOTHING / CLASSES
        feature = model.backbone(images)[-1]
        feature = feature.mean(dim=(2, 3)) if feature.ndim == 4 else feature
        loss = -(targets * model.head.fc(feature).log_softmax(dim=1)).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        if recipe.clip is not None:
            norm = torch.stack([p.grad.square().sum() for p in model.parameters()]).sum().sqrt()
            assert norm > CLIP
            for p in model.parameters():
                p.grad *= CLIP / (norm + 1e-6)
        for group in optimizer.param_groups:
            group['lr'] = rate(recipe, step, group['factor'])
        optimizer.step()
        losses.append(loss.item())
        rates.append(rate(recipe, step))
        now = {key: p.detach().clone() for key, p in model.named_parameters()}
        if average is None:
            average = now
        else:
            average = {key: (1 - EMA) * average[key] + EMA * p for key, p in now.items()}
    return average, losses, rates


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, layer_decay', [*((name, False) for name in RECIPES), ('paca/paca_s_in1k', True)]
)
def test_first_steps(name, layer_decay, tmp_path):
    recipe = RECIPES[name]
    model, found, observer = run_config(name, str(tmp_path), layer_decay)
    average, losses, rates = train_plainly(model, recipe, layer_decay)
    assert len(observer.losses) == STEPS and losses[0] != losses[-1]
    assert observer.losses == pytest.approx(losses, rel=1e-10)
    assert [max(r) for r in observer.rates] == pytest.approx(rates, rel=1e-10)
    for key, p in model.named_parameters():
        torch.testing.assert_close(
            found['weights'].get_parameter(key), p, rtol=1e-8, atol=1e-11, msg=key
        )
        torch.testing.assert_close(
            found['average'].get_parameter(key), average[key], rtol=1e-8, atol=1e-11, msg=key
        )
    for key, buffer in model.named_buffers():
        if 'running' in key:
            torch.testing.assert_close(found['weights'].get_buffer(key), buffer)
            torch.testing.assert_close(found['average'].get_buffer(key), buffer)  # the newest


PER_EPOCH = 10  # iterations


def get_rates(name: str) -> list[float]:
    """Ours over the whole of a recipe."""
    cfg = load_config(name)
    optimizer = torch.optim.AdamW([torch.zeros(1)], lr=cfg.optim_wrapper.optimizer.lr)
    by_epoch, by_iteration = [], []
    for options in map(dict, cfg.param_scheduler):
        kind = PARAM_SCHEDULERS.get(options.pop('type'))
        if options.pop('convert_to_iter_based', False):
            build = partial(kind.build_iter_from_epoch, epoch_length=PER_EPOCH)
            by_iteration.append(build(optimizer=optimizer, **options))
        else:
            by_epoch.append(kind(optimizer, **options))
    rates = []
    for _ in range(cfg.train_cfg.max_epochs):
        for _ in range(PER_EPOCH):
            rates.append(optimizer.param_groups[0]['lr'])
            optimizer.step()
            for scheduler in by_iteration:
                scheduler.step()
        for scheduler in by_epoch:
            scheduler.step()
    return rates


@pytest.mark.parametrize('name', RECIPES)
def test_learning_rates_by_their_formula(name):
    """To the end: the line rises with each iteration, the cosine moves once an epoch."""
    recipe = RECIPES[name]
    rising = recipe._replace(warm_up=PER_EPOCH * recipe.warm_up)
    wanted = [rate(rising, step) for step in range(rising.warm_up)]
    for epoch in range(recipe.warm_up, recipe.epochs):
        wanted += PER_EPOCH * [rate(recipe, epoch)]
    np.testing.assert_allclose(get_rates(name), wanted, rtol=0, atol=1e-12)


def get_rates_of_timm(recipe: Recipe, by_epoch: bool) -> list[float]:
    """Those of the scheduler that the authors of PaCa-ViT, FCViT and GroupMixFormer use."""
    optimizer = torch.optim.AdamW([torch.zeros(1)], lr=recipe.lr)
    unit = 1 if by_epoch else PER_EPOCH
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs * unit,
        lr_min=recipe.end,
        warmup_lr_init=recipe.start * recipe.lr,
        warmup_t=recipe.warm_up * unit,
        t_in_epochs=by_epoch,
    )
    rates = []
    for step in range(recipe.epochs * PER_EPOCH):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        if by_epoch and (step + 1) % PER_EPOCH == 0:
            scheduler.step((step + 1) // PER_EPOCH)
        elif not by_epoch:
            scheduler.step_update(step + 1)
    return rates


def get_rates_of_pytorch(recipe: Recipe) -> list[float]:
    """Those of the schedulers that MSF's author uses."""
    optimizer = torch.optim.AdamW([torch.zeros(1)], lr=recipe.lr)
    warm_up = lr_scheduler.LinearLR(optimizer, recipe.start, total_iters=recipe.warm_up)
    decay = lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs - recipe.warm_up, recipe.end)
    scheduler = lr_scheduler.SequentialLR(optimizer, [warm_up, decay], [recipe.warm_up])
    rates = []
    for _ in range(recipe.epochs):
        rates += PER_EPOCH * [optimizer.param_groups[0]['lr']]
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    'name, warming, after',
    [
        ('paca/paca_s_in1k', 0.1998, 0.0151),
        ('groupmixformer/groupmixformer_s_in1k', 0.005, 0.0663),
        ('fcvit/fcvit_b12_in1k', 0.1998, 0.0153),
        ('msf/msf_s_in1k', 0.0967, 0),
    ],
)
def test_learning_rates_beside_the_authors(name, warming, after):
    """The largest differences, in parts of the peak: docs/backbones.md says where they are from."""
    recipe = RECIPES[name]
    if name.startswith('msf'):
        theirs = get_rates_of_pytorch(recipe)
    else:
        theirs = get_rates_of_timm(recipe, by_epoch=not name.startswith('group'))
    ours = get_rates(name)
    differences = np.abs(np.subtract(ours, theirs)) / recipe.lr
    end = recipe.warm_up * PER_EPOCH
    assert differences[:end].max() == pytest.approx(warming, rel=0.01)
    assert differences[end:].max() == pytest.approx(after, rel=0.01, abs=1e-12)


@pytest.mark.parametrize('name', RECIPES)
def test_what_decays_is_the_authors(name):
    """timm's groups, which PaCa-ViT and FCViT are trained with; GroupMixFormer's are the same.

    MSF's author gives PyTorch's optimizer all tensors alike.
    """
    cfg = load_config(name)
    model = MODELS.build(dict(TINY[next(iter(FAMILY[name.split('/')[0]].tiny))]))
    ours = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    if RECIPES[name].decays_vectors:
        groups = [dict(params=list(model.parameters()))]
    else:
        groups = param_groups_weight_decay(model, cfg.optim_wrapper.optimizer.weight_decay)
    theirs = torch.optim.AdamW(groups, weight_decay=cfg.optim_wrapper.optimizer.weight_decay)

    def get_decays(optimizer: torch.optim.Optimizer) -> dict[int, float]:
        return {id(p): g['weight_decay'] for g in optimizer.param_groups for p in g['params']}

    assert get_decays(ours) == get_decays(theirs)
