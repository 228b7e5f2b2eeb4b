"""From a config to a model, with its weights or without, and to mmengine's runner."""

from __future__ import annotations

import copy
import re
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, RUNNERS, DefaultScope
from mmengine.runner import Runner
from torch import Tensor, nn

from ..errors import UserError
from ..serialization.checkpoint import get_classes, get_state_dict, load_file
from ..serialization.loading import load_whole
from .data import find_classes, prepare_loading

# What Python says of arguments that a constructor, or the one that it inherits from, has not.
WRONG_CALL = re.compile(r'__init__\(\) (got an unexpected|missing|takes)')


def build_model(cfg: Config, device: torch.device | str = 'cpu') -> nn.Module:
    """The model of a config in eval mode, without the pretrained file that it may name.

    Args:
        cfg: Of a classifier, detector or segmentor; it is not changed.
        device: Where it goes; 'meta' for shapes without numbers.

    Raises:
        UserError: When the config's model cannot be built.
    """
    model = ConfigDict(cfg.model.to_dict())
    model.pop('pretrained', None)
    model.backbone.pop('init_cfg', None)
    if 'data_preprocessor' in cfg:  # where classifiers have it; a runner hands it on too
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    device = torch.device(device)
    with (
        told_in_one_line('the model of this config cannot be built'),
        warnings.catch_warnings(),
        DefaultScope.overwrite_default_scope(cfg.default_scope),
        torch.device('meta' if device.type == 'meta' else 'cpu'),
    ):
        warnings.simplefilter('ignore')  # losses of mmseg speak of training
        built = MODELS.build(model)
    if device.type != 'cuda':
        built = revert_sync_batchnorm(built)
    return built.to(device).eval()


def count_channels(cfg: Config) -> int:
    """The channels of the images that a config's backbone takes."""
    return cfg.model.get('backbone', {}).get('in_channels', 3)


def outline_maps(model: nn.Module, cfg: Config, side: int) -> Sequence[Tensor]:
    """What a config's backbone makes of a square image, as shapes alone."""
    backbone = copy.deepcopy(model.backbone).to('meta')
    return backbone(torch.empty(1, count_channels(cfg), side, side, device='meta'))


def outline_model(cfg: Config) -> nn.Module:
    """The model on the meta device; on the CPU if its constructor asks tensors for numbers.

    Raises:
        UserError: When it cannot be built on the CPU either.
    """
    scope = DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine'))
    with told_in_one_line('the model of this config cannot be built'), scope:
        try:
            with torch.device('meta'):
                return MODELS.build(cfg.model)
        except Exception:  # whatever it was, the CPU tells
            return MODELS.build(cfg.model)


def load_model(cfg: Config, checkpoint: str, device: torch.device | str = 'cpu') -> nn.Module:
    """The model of a config with every tensor of a checkpoint, in eval mode.

    Its ``dataset_meta`` has the classes, and colours where known: the checkpoint's, or those of the
    config's data set.

    Raises:
        UserError: When the file is missing, unreadable or of another model.
    """
    model = build_model(cfg, device)
    content = load_file(checkpoint)
    state, classes = get_state_dict(content), get_classes(content.get('meta') or {})
    load_whole(model, state, checkpoint)
    model.dataset_meta = find_classes(cfg, classes)
    return model


@contextmanager
def told_in_one_line(problem: str) -> Iterator[None]:
    """Turn what a constructor refuses, and what a builder cannot find or call, into a line.

    Whatever else goes wrong is a fault of the code, not of the config, and passes as it is.
    """
    try:
        yield
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        is_builders = frame.name.startswith('build_') or WRONG_CALL.search(str(error))
        if isinstance(error, KeyError | TypeError) and not is_builders:
            raise
        message = ' '.join(str(error.args[0]).split()) if error.args else ''
        if not message:  # a bare assertion says at least where it stands
            message = f'{frame.line} ({frame.filename}:{frame.lineno})'
        raise UserError(f'{problem}: {message}') from error


def pick_device(device: str | None) -> torch.device:
    """The device of this name, or when there is none the first GPU, or the CPU.

    Raises:
        UserError: When the machine has no such device.
    """
    try:
        chosen = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=chosen)
    except (AssertionError, RuntimeError) as error:
        raise UserError(f"--device '{device}' is no device of this machine") from error
    return chosen


def build_runner(cfg: Config) -> Runner:
    """The runner of a complete config, made fit for this machine."""
    prepare_loading(cfg)
    if not torch.cuda.is_available():
        use_cpu(cfg)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def use_cpu(cfg: Config) -> None:
    """Without a CUDA device: plain batch norm, and gloo between processes.

    mmengine's own start-up selects a CUDA device, so the processes are connected here, before it.
    """
    replace_sync_bn(cfg.model)
    if cfg.launcher == 'none':
        return
    if cfg.launcher != 'pytorch':
        raise UserError(
            f'--launcher {cfg.launcher} needs CUDA devices; tools/dist_train.sh also works without'
        )
    cfg.env_cfg.dist_cfg = dict(backend='gloo')
    cfg.setdefault('model_wrapper_cfg', ConfigDict())
    wrapper = cfg.model_wrapper_cfg
    if wrapper.setdefault('type', 'MMDistributedDataParallel') == 'MMDistributedDataParallel':
        wrapper.update(device_ids=None)
        wrapper.setdefault('broadcast_buffers', False)
        wrapper.setdefault('find_unused_parameters', cfg.get('find_unused_parameters', False))
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')


def replace_sync_bn(node: object) -> None:
    """Turn every ``type='SyncBN'`` below a config node into ``'BN'``: a runner builds from it."""
    if isinstance(node, dict):
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            replace_sync_bn(child)
