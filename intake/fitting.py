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

TOO_FEW = 'Expected more than 1 value per channel'  # in PyTorch's words
FULL = 0.9  # of the memory that a trial may reserve, since pictures differ


def find_least(cfg: Config) -> int:
    """Pictures at a time that a model needs: 2 where it normalizes means over whole maps."""
    head = cfg.model.get('decode_head') or {}
    return 2 if isinstance(head, dict) and 1 in (head.get('pool_scales') or ()) else 1


def find_batch(cfg: Config, most: int, least: int = 1) -> int:
    """The largest power of two of pictures that a step on a GPU takes.

    Args:
        cfg: The training, with its data.
        most: No more are tried, unless it is below the least.
        least: The fewest to try; 2 if the model turns out to need as many.

    Raises:
        UserError: When not even the least fits.
    """
    batch = least
    try:
        while batch <= max(most, least) and fits(cfg, batch):
            batch *= 2
    except ValueError as error:
        if batch > 1 or TOO_FEW not in str(error):
            raise
        return find_batch(cfg, most, 2)
    if batch == least:
        few = 'not one picture fits' if least == 1 else f'{least} pictures, the fewest, do not fit'
        raise UserError(f"{few} into the GPU's memory: choose a smaller --model")
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
