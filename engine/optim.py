"""Groups of parameters: one for each setting of an optimizer, and layer-wise learning rates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from mmengine.hooks import Hook
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.runner import Runner
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from torch import Tensor, nn

from ..errors import UserError
from ..registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS

OWN = ('params', 'param_name', 'places')  # keys of a group that are no setting of the optimizer
PER_GROUP = ('base_values', '_last_value', 'min_values')  # lists in the state of a schedule


class _OneGroupPerSetting:
    """For a constructor that makes a group of each parameter: merges those of one setting.

    A step then runs as often as there are settings, and what takes many tensors at a time, such as
    fused optimizers, does. ``places`` of a group are those of its parameters among all of them in
    the model's order.
    """

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs: object
    ) -> None:
        super().add_params(params, module, prefix, **kwargs)
        if prefix == '':
            merge_groups(params)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        wrapper = super().__call__(model)
        if getattr(wrapper, 'clip_grad_kwargs', None):
            # The norm of all gradients depends in its last bit on their order.
            places = {p: i for i, p in enumerate(sort_parameters(wrapper.optimizer.param_groups))}
            wrapper.clip_func = partial(_clip_in_order, wrapper.clip_func, places)
        return wrapper


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(_OneGroupPerSetting, DefaultOptimWrapperConstructor):
    """mmengine's default constructor, but for one group of parameters for each setting.

    The weights are the same to the bit. The tools use it where a config has ``paramwise_cfg`` and
    no constructor of its own; :class:`RegroupHook` lets older checkpoints be resumed from.
    """


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(
    _OneGroupPerSetting, LearningRateDecayOptimWrapperConstructor
):
    """Each layer of the backbone learns ``layer_decay_rate`` times as fast as the one above it.

    mmpretrain's constructor, which asks the whole model for the depth of a parameter; detectors and
    segmentors have no answer, their backbone has. ``paramwise_cfg`` is that constructor's:
    ``layer_decay_rate``, ``norm_decay_mult``, ``bias_decay_mult``, ``custom_keys``, whose
    ``lr_mult`` counts here too.

    Raises:
        UserError: When the backbone does not say how deep a parameter lies.
    """

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        get_layer_depth: Callable | None = None,
        **kwargs: object,
    ) -> None:
        if get_layer_depth is None:
            backbone = getattr(module, 'backbone', None)
            if not hasattr(backbone, 'get_layer_depth'):
                raise UserError(
                    f'layer-wise decay needs a backbone with get_layer_depth; '
                    f'{type(backbone).__name__} has none'
                )
            get_layer_depth = partial(backbone.get_layer_depth, prefix='backbone.')
        super().add_params(params, module, prefix, get_layer_depth=get_layer_depth)
        if prefix == '':
            for group in params:
                group['lr'] *= group.pop('lr_mult', 1.0)


@HOOKS.register_module()
class RegroupHook(Hook):
    """Lets a run resume whose checkpoint has a group of the optimizer for each parameter.

    That is what mmengine's constructor makes, where this run's makes one for each setting. Comes
    before all hooks that read the state of the optimizer or of the schedules.
    """

    priority = 'HIGHEST'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Regroup what is resumed from, in place.

        Raises:
            UserError: When the groups are others than this run's.
        """
        wrapper = runner.optim_wrapper
        if runner._resume and 'optimizer' in checkpoint and isinstance(wrapper, OptimWrapper):
            groups = wrapper.optimizer.param_groups
            if all('places' in group for group in groups):
                regroup(checkpoint, [list(group['places']) for group in groups])


def merge_groups(groups: list[dict]) -> None:
    """Make one group of all that have the same settings, in place; parameters keep their order."""
    tensors = [tensor for group in groups for tensor in group['params']]
    if len(set(tensors)) < len(tensors):
        return  # torch refuses a parameter in two groups, but not twice in one
    merged: list[tuple[dict, list[Tensor], list[int]]] = []
    place = 0
    for group in groups:
        settings = _get_settings(group)
        found = next((entry for entry in merged if entry[0] == settings), None)
        if found is None:
            found = settings, [], []
            merged.append(found)
        for tensor in group['params']:
            found[1].append(tensor)
            found[2].append(place)
            place += 1
    groups[:] = [dict(params=p, places=at, **settings) for settings, p, at in merged]


def sort_parameters(groups: Iterable[dict]) -> list[nn.Parameter]:
    """The parameters of an optimizer's groups, in the model's order if these were merged."""
    groups = list(groups)
    params = [param for group in groups for param in group['params']]
    if not all('places' in group for group in groups):
        return params
    places = [place for group in groups for place in group['places']]
    return [param for _, param in sorted(zip(places, params), key=lambda pair: pair[0])]


def regroup(checkpoint: dict, groups: list[list[int]]) -> None:
    """Let a checkpoint that has a group for each parameter have those of a run instead, in place.

    Args:
        checkpoint: With ``optimizer`` and maybe ``param_schedulers``.
        groups: The places of each group's parameters in the model's order.

    Raises:
        UserError: When it has other groups, or settings that differ within one of the run's.
    """
    optimizer = checkpoint['optimizer']
    saved = optimizer['param_groups']
    sizes = [len(group['params']) for group in saved]
    count = sum(map(len, groups))
    if sizes == [len(places) for places in groups]:
        if all(list(g.get('places', p)) == p for g, p in zip(saved, groups)):
            return
    elif sizes == [1] * count:
        alike = [
            all(_get_settings(saved[p]) == _get_settings(saved[places[0]]) for p in places)
            for places in groups
        ]
        if all(alike):
            _regroup_optimizer(optimizer, groups)
            _regroup_schedules(checkpoint.get('param_schedulers') or [], groups, count)
            return
    raise UserError(
        f'the checkpoint has {len(saved)} groups of {sum(sizes)} parameters with learning rates '
        f'and decays of their own, which are not the {len(groups)} of {count} of this run: it can '
        'be resumed with the model and optim_wrapper that wrote it; with others, start from its '
        'weights: --cfg-options load_from=FILE'
    )


def _regroup_optimizer(optimizer: dict, groups: list[list[int]]) -> None:
    saved, state = optimizer['param_groups'], optimizer['state']
    order = [saved[place]['params'][0] for places in groups for place in places]
    optimizer['state'] = {new: state[old] for new, old in enumerate(order) if old in state}
    begin = 0
    optimizer['param_groups'] = []
    for places in groups:
        numbers = list(range(begin, begin + len(places)))
        settings = _get_settings(saved[places[0]])
        optimizer['param_groups'].append(dict(settings, params=numbers, places=places))
        begin += len(places)


def _regroup_schedules(schedules: list | dict, groups: list[list[int]], count: int) -> None:
    if isinstance(schedules, dict):
        schedules = [state for states in schedules.values() for state in states]
    for state in schedules:
        for key in PER_GROUP:
            values = state.get(key)
            if isinstance(values, list) and len(values) >= count:
                # Behind the groups mmengine keeps the optimizer's own settings, as if another one.
                state[key] = [values[places[0]] for places in groups] + values[count:]


def _get_settings(group: dict) -> dict:
    return {key: value for key, value in group.items() if key not in OWN}


def _clip_in_order(
    clip: Callable, places: dict[Tensor, int], params: list[Tensor], **kwargs: object
) -> Tensor | None:
    return clip(sorted(params, key=places.__getitem__), **kwargs)
