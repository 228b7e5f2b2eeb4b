"""How many pictures fit into the memory at once: trial steps of the real training."""

from __future__ import annotations

import copy
import gc

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from ..engine.building import build_model
from ..engine.data import prepare_loading
from ..errors import UserError

ON_CPU = {'mmpretrain': 16}  # pictures at a time; else 4
FEW = 4
FULL = 0.9  # of the memory that a trial may reserve, since pictures differ


def pick_few(cfg: Config) -> int:
    """Pictures at a time on the CPU, where more do not make it faster."""
    return ON_CPU.get(cfg.default_scope, FEW)


def find_batch(cfg: Config, most: int) -> int:
    """The largest power of two of pictures that a step on a GPU takes.

    Args:
        cfg: The training, with its data.
        most: No more are tried.

    Raises:
        UserError: When not even one picture fits.
    """
    batch = 1
    while batch <= most and fits(cfg, batch):
        batch *= 2
    if batch == 1:
        raise UserError("not one picture fits into the GPU's memory: choose a smaller --model")
    return batch // 2


def fits(cfg: Config, batch: int) -> bool:
    """Whether two steps with so many pictures leave some of the GPU's memory."""
    device = torch.device('cuda')
    torch.cuda.reset_peak_memory_stats()
    try:
        step_twice(cfg, batch, device)
        used = torch.cuda.max_memory_reserved()
    except torch.OutOfMemoryError:
        return False
    finally:
        gc.collect()
        torch.cuda.empty_cache()
    return used <= FULL * torch.cuda.get_device_properties(device).total_memory


def step_twice(cfg: Config, batch: int, device: torch.device) -> None:
    """Two steps on the training's own pictures; the second has the optimizer's state beside."""
    cfg = copy.deepcopy(cfg)
    prepare_loading(cfg)
    cfg.train_dataloader.update(batch_size=batch, num_workers=0, persistent_workers=False)
    cfg.optim_wrapper.pop('accumulative_counts', None)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build_model(cfg, device).train()
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
        for _ in range(2):
            model.train_step(next(iter(loader)), optimizer)
