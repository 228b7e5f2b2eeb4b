"""Parameters, gradients and optimizer states shared out among processes: torch's fully_shard."""

from __future__ import annotations

import torch
from mmengine.dist import broadcast
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import UserError
from ..registry import HOOKS, MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class FullyShardedModel(nn.Module):
    """Wraps a model for mmengine's runner with ``torch.distributed.fsdp.fully_shard`` (FSDP2).

    In a config: ``model_wrapper_cfg = dict(type='mmdense.FullyShardedModel')``, to which the tools
    add :class:`ShardedCheckpointHook`. Each process keeps
    its share of every parameter, and of what the optimizer holds of it; a block's parameters are
    whole only while it runs. Checkpoints are those of any other run: whole tensors, for any number
    of processes.

    Args:
        module: The model; it is initialized here, since a share cannot be.

    Raises:
        UserError: When the processes are not connected.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        if not torch.distributed.is_initialized():
            raise UserError('FullyShardedModel needs a launcher: bash tools/dist_train.sh ...')
        if hasattr(module, 'init_weights'):
            module.init_weights()
        for tensor in (*module.parameters(), *module.buffers()):
            broadcast(tensor.detach())
        device = next(module.parameters()).device.type
        mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
        for child in find_blocks(module):
            fully_shard(child, mesh=mesh)
        fully_shard(module, mesh=mesh)
        module.register_load_state_dict_pre_hook(_share_state)
        module.register_state_dict_post_hook(lambda *args: self._gather_state(*args))
        self.module = module
        self.is_whole = True  # what the state dict is: whole, which takes all processes, or shares

    def _gather_state(self, module: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
        if self.is_whole:
            state.update({key: gather(value) for key, value in state.items()})

    def train_step(self, data: dict | tuple | list, optim_wrapper: OptimWrapper) -> dict:
        """As of the model, see mmengine's ``BaseModel.train_step``."""
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data: dict | tuple | list) -> list:
        """As of the model."""
        return self.module.val_step(data)

    def test_step(self, data: dict | tuple | list) -> list:
        """As of the model."""
        return self.module.test_step(data)

    def forward(self, *args: object, **kwargs: object) -> object:
        """As of the model."""
        return self.module(*args, **kwargs)


def find_blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks of a backbone: what its innermost lists of modules hold."""
    kinds = (nn.ModuleList, nn.Sequential)

    def visit(module: nn.Module, in_list: bool) -> list[nn.Module]:
        children = list(module.children())
        inner = [b for child in children for b in visit(child, isinstance(module, kinds))]
        is_block = in_list and children and not isinstance(module, kinds)
        return inner or ([module] if is_block else [])

    return visit(getattr(module, 'backbone', module), in_list=False)


def gather(value: object) -> object:
    """A tensor as a whole, on every process; anything else as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def share(value: Tensor, like: Tensor) -> Tensor:
    """This process's share of a whole tensor, if ``like`` is shared and of its shape."""
    if not isinstance(like, DTensor) or isinstance(value, DTensor) or value.shape != like.shape:
        return value
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def _share_state(module: nn.Module, state: dict, prefix: str, *args: object) -> None:
    own = dict(module.named_parameters())
    for key in state:
        name = key.removeprefix(prefix)
        if name in own:
            state[key] = share(state[key], own[name])


@HOOKS.register_module()
class ShardedCheckpointHook(Hook):
    """Writes whole tensors of a :class:`FullyShardedModel` and its optimizer, and reads shares."""

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Refuse averaged weights, which mmengine copies as a whole."""
        if any(isinstance(hook, EMAHook) for hook in runner.hooks):
            raise UserError(
                'averaged weights (EMAHook) are not shared out: leave them out, or '
                'FullyShardedModel'
            )

    def before_train(self, runner: Runner) -> None:
        """From now on the first process alone asks for the state dict, to save it."""
        runner.model.is_whole = False

    def gather_checkpoint(self, runner: Runner) -> None:
        """Make the tensors whole: every process takes part, and the first one writes them."""
        self.model = {k: gather(v) for k, v in runner.model.module.state_dict().items()}
        self.optimizer = {
            index: {key: gather(value) for key, value in state.items()}
            for index, state in runner.optim_wrapper.state_dict()['state'].items()
        }

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the whole tensors in the place of this process's shares."""
        checkpoint['state_dict'] = {key: value.cpu() for key, value in self.model.items()}
        if 'optimizer' in checkpoint:
            checkpoint['optimizer']['state'] = self.optimizer
        self.model = self.optimizer = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Share out what the optimizer needs; the model does so by itself."""
        if 'optimizer' not in checkpoint or not isinstance(runner.optim_wrapper, OptimWrapper):
            return
        params = [param for group in runner.optim_wrapper.param_groups for param in group['params']]
        for index, state in checkpoint['optimizer']['state'].items():
            state.update({key: share(value, params[index]) for key, value in state.items()})
