"""Words of a config that nothing reads, and schedules that the training does not reach."""

from __future__ import annotations

import ast
import difflib
import inspect
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence

from mmengine import registry
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, TestLoop, ValLoop
from mmengine.runner.utils import set_random_seed
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader

from ..errors import UserError, suggest

# What a run reads at the top of a config, beside the arguments of its runner.
MORE_RUN_WORDS = (
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'data_check',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'strategy',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
    'vis_backends',
)
RUN_WORDS = {*inspect.signature(Runner.__init__).parameters, *MORE_RUN_WORDS} - {'self', 'cfg'}

# The registries that build what stands below a key, until another of these keys comes.
REGISTRIES: dict[str, tuple[Registry, ...]] = {
    'model': (registry.MODELS, registry.TASK_UTILS),
    'tta_model': (registry.MODELS,),
    'data_preprocessor': (registry.MODELS,),
    'init_cfg': (registry.WEIGHT_INITIALIZERS,),
    'dataset': (registry.DATASETS,),
    'datasets': (registry.DATASETS,),
    'pipeline': (registry.TRANSFORMS,),
    'transforms': (registry.TRANSFORMS,),
    'sampler': (registry.DATA_SAMPLERS, registry.TASK_UTILS),
    'batch_sampler': (registry.DATA_SAMPLERS,),
    'evaluator': (registry.METRICS, registry.EVALUATOR),
    'optim_wrapper': (registry.OPTIM_WRAPPERS,),
    'optimizer': (registry.OPTIMIZERS,),
    'param_scheduler': (registry.PARAM_SCHEDULERS,),
    'default_hooks': (registry.HOOKS,),
    'custom_hooks': (registry.HOOKS,),
    'visualizer': (registry.VISUALIZERS,),
    'vis_backends': (registry.VISBACKENDS,),
    'log_processor': (registry.LOG_PROCESSORS,),
}
# What the builders take out before they call the class.
BUILDERS_WORDS = {
    'type',
    '_scope_',
    '_delete_',
    'constructor',  # optim_wrapper
    'paramwise_cfg',
    'convert_to_iter_based',  # param_scheduler
    'name',  # visualizer
    'override',  # init_cfg
    'pretrained',  # models that load their parts themselves
    'priority',  # hooks
}
# Settings of functions (an activation's, a norm's) and of data, whose readers differ.
NOT_LOOKED_INTO = {'metainfo', 'collate_fn', 'worker_init_fn', 'custom_imports', 'override'}
LOADER_WORDS = {
    *inspect.signature(DataLoader.__init__).parameters,
    'num_batch_per_epoch',
    'disable_subprocess_warning',
} - {'self'}
CLIP_WORDS = {'type', 'max_norm', 'norm_type', 'error_if_nonfinite', 'foreach', 'clip_value'}
PARAMWISE_WORDS = {
    'custom_keys',
    'bypass_duplicate',
    'bias_lr_mult',
    'bias_decay_mult',
    'norm_decay_mult',
    'flat_decay_mult',
    'dwconv_decay_mult',
    'dcn_offset_lr_mult',
}
ENV_WORDS = {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'}
DEFAULT_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')


def check_option_words(cfg: Config, options: dict) -> None:
    """Raise :class:`UserError` for an override whose first word neither config nor run knows."""
    for key in options:
        word = key.split('.')[0]
        known = {*cfg, *RUN_WORDS}
        if word not in known:
            raise UserError(
                f"--cfg-options {key}: the config has no '{word}'{suggest(word, known)}"
            )


def check_words(cfg: Config) -> None:
    """Raise :class:`UserError` for a word of a config that what it is meant for does not take.

    At the top, where configs have variables of their own, that is a near miss of a word that runs
    read; below, a setting that the class which ``type`` names has no parameter for. A class that
    hands whatever it gets to something else is not asked.
    """
    for word in cfg:
        if word not in RUN_WORDS and (meant := find_near_miss(word)):
            raise UserError(f"the config's '{word}' is read by nothing; did you mean {meant}?")
    for where, word, known in find_unknown(cfg):
        raise UserError(f"{where} has no setting '{word}'{suggest(word, known)}")


def find_near_miss(word: str) -> str | None:
    """The word of a run that this must be meant for; variants such as ``train_cfg_2`` are not."""
    # test_pipeline is every config's own variable
    close = difflib.get_close_matches(word, RUN_WORDS - {'tta_pipeline'}, n=1, cutoff=0.85)
    if not close or word.startswith(f'{close[0]}_') or word[-1].isdigit() or len(close[0]) < 8:
        return None
    return close[0]


def find_unknown(cfg: Config) -> Iterator[tuple[str, str, set[str]]]:
    """Where, the word, and what is known there."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        for key in RUN_WORDS & {*cfg}:
            yield from _in_section(key, cfg[key])


def _in_section(key: str, node: object) -> Iterator[tuple[str, str, set[str]]]:
    if not isinstance(node, dict | list | tuple):
        return
    if key.endswith('_dataloader') and isinstance(node, dict):
        yield from _unknown_words(key, node, LOADER_WORDS)
    elif key.endswith('_cfg') and key in LOOPS and isinstance(node, dict):
        yield from _in_loop(key, node)
        return
    elif key == 'env_cfg':
        yield from _unknown_words(key, node, ENV_WORDS)
        processes, _ = _parameters(set_multi_processing)
        yield from _unknown_words('env_cfg.mp_cfg', node.get('mp_cfg') or {}, processes)
    elif key == 'randomness':
        yield from _unknown_words(key, node, _parameters(set_random_seed)[0])
    elif key == 'auto_scale_lr':
        yield from _unknown_words(key, node, {'enable', 'base_batch_size'})
    elif key == 'optim_wrapper':
        yield from _unknown_words(f'{key}.clip_grad', node.get('clip_grad') or {}, CLIP_WORDS)
        if 'constructor' not in node:
            by_parameter = node.get('paramwise_cfg') or {}
            yield from _unknown_words(f'{key}.paramwise_cfg', by_parameter, PARAMWISE_WORDS)
    elif key == 'default_hooks':
        for name, hook in node.items():
            if isinstance(hook, dict) and 'type' not in hook:
                yield key, name, {*DEFAULT_HOOKS, *node} - {name}
    if any(key.endswith(name) for name in REGISTRIES) or key.endswith('_dataloader'):
        yield from _below(key, key, node, ())


LOOPS = {
    'train_cfg': (EpochBasedTrainLoop, IterBasedTrainLoop),
    'val_cfg': (ValLoop, ValLoop),
    'test_cfg': (TestLoop, TestLoop),
}


def _in_loop(key: str, node: dict) -> Iterator[tuple[str, str, set[str]]]:
    by_epoch, by_iter = LOOPS[key]
    if 'type' in node:
        kinds = _find_kinds(node['type'], (registry.LOOPS,))
    else:
        kinds = [by_epoch if node.get('by_epoch', True) else by_iter]
    words, takes_any = _all_parameters(kinds)
    if not takes_any:
        yield from _unknown_words(key, node, words | {'type', 'by_epoch'})


def _below(
    where: str,
    key: str,
    node: object,
    registries: tuple[Registry, ...],
    parents: Sequence[Callable] = (),
) -> Iterator[tuple[str, str, set[str]]]:
    """Unknown words at and below a node, which the classes ``parents`` build."""
    last = key.rsplit('_', 1)[-1]
    registries = REGISTRIES.get(key) or REGISTRIES.get(last) or registries
    if isinstance(node, list | tuple):
        for i, child in enumerate(node):
            yield from _below(f'{where}.{i}', key, child, registries, parents)
    elif isinstance(node, dict):
        kinds = _find_kinds(node['type'], registries) if 'type' in node else []
        words, takes_any = _all_parameters(kinds)
        if kinds and 'constructor' not in node:
            name = node['type'] if isinstance(node['type'], str) else kinds[0].__name__
            is_lenient = registry.HOOKS in registries or registry.METRICS in registries
            for place, word, _ in _unknown_words(f'{where} ({name})', node, words | BUILDERS_WORDS):
                if takes_any and not (is_lenient and _is_near(word, words)):
                    continue
                if not any(_speaks_of(parent, word) for parent in parents):
                    yield place, word, words
        for child_key, child in node.items():
            is_call = child_key.endswith(('_cfg', '_cfgs')) and child_key not in (
                'init_cfg',
                'train_cfg',
                'test_cfg',
            )
            if child_key not in NOT_LOOKED_INTO and not is_call:
                below = f'{where}.{child_key}'
                yield from _below(below, child_key, child, registries, kinds or parents)


def _unknown_words(where: str, node: dict, words: set[str]) -> Iterator[tuple[str, str, set[str]]]:
    for word in node:
        if word not in words and not word.startswith('_'):
            yield where, word, words


def _speaks_of(parent: Callable, word: str) -> bool:
    """Whether the code of a class names a word: it may take it out before it builds its part."""
    for cls in getattr(parent, '__mro__', ()):
        if not cls.__module__.startswith(('builtins', 'torch.')):
            try:
                if f"'{word}'" in inspect.getsource(cls):
                    return True
            except (OSError, TypeError):
                return True
    return False


def _is_near(word: str, words: set[str]) -> bool:
    """Whether a word must be one of these, misspelt: hooks and metrics take whatever they get."""
    return bool(difflib.get_close_matches(word, words, n=1, cutoff=0.85))


def _find_kinds(kind: object, registries: tuple[Registry, ...]) -> list[Callable]:
    """What a type may stand for; nothing for a name that no registry has: its builder says so."""
    if not isinstance(kind, str):
        return [kind] if callable(kind) else []
    found = []
    for each in registries:
        with each.switch_scope_and_registry(None) as scoped:
            found.append(scoped.get(kind))
    return [kind for kind in found if kind is not None]


def _all_parameters(kinds: list[Callable]) -> tuple[set[str], bool]:
    """The names that any of several classes or functions takes, and whether one takes all."""
    found = [_parameters(kind) for kind in kinds]
    return set().union(*(words for words, _ in found)), not found or any(a for _, a in found)


def _parameters(kind: Callable) -> tuple[set[str], bool]:
    """The names that a call of a class or function takes, and whether it takes any other."""
    if inspect.isclass(kind):
        calls = [vars(cls)['__init__'] for cls in kind.__mro__ if '__init__' in vars(cls)]
    else:
        calls = [kind]
    words: set[str] = set()
    for call in calls:
        if call is object.__init__:
            return words, False
        if hasattr(call, '__wrapped__'):  # it may take other names than what it wraps
            return words, True
        try:
            parameters = inspect.signature(call).parameters.values()
        except (TypeError, ValueError):
            return words, True
        words |= {p.name for p in parameters}
        rest = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
        if not rest:
            return words, False
        if not inspect.isclass(kind) or not _hands_on(call, rest[0]):
            return words, True
    return words, True


def _hands_on(init: Callable, rest: str) -> bool:
    """Whether ``**rest`` goes to the next class's ``__init__`` and nowhere else."""
    name = init.__qualname__.split('.')[-2]
    parents = ('super().__init__', f'super({name}, self).__init__')
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    except (OSError, SyntaxError, TypeError):
        return False
    harmless: set[int] = set()
    handed: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in parents:
            handed |= {id(keyword.value) for keyword in node.keywords if keyword.arg is None}
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            harmless.add(id(node.value))  # rest['key'] = ...
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == rest:
            harmless |= {id(child) for child in ast.walk(node)}  # rest = {'key': ..., **rest}
    return bool(handed) and all(
        id(node) in harmless | handed
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == rest
    )


def find_late_schedules(cfg: Config, iters_per_epoch: float = math.inf) -> Iterator[str]:
    """What of a training's schedule lies after its end, a line each.

    Args:
        cfg: The config.
        iters_per_epoch: Iterations of an epoch at most, for what counts the other way.
    """
    loop = cfg.get('train_cfg') or {}
    in_epochs = 'max_epochs' in loop
    total = loop.get('max_epochs') or loop.get('max_iters')
    if not total:
        return
    ends = {
        True: total if in_epochs else math.inf,
        False: total * iters_per_epoch if in_epochs else total,
    }
    unit = {True: 'epoch', False: 'iteration'}
    schedulers = cfg.get('param_scheduler') or []
    schedulers = schedulers if isinstance(schedulers, list | tuple) else [schedulers]
    for i, scheduler in enumerate(schedulers):
        if not isinstance(scheduler, dict) or 'type' not in scheduler:
            continue
        by_epoch = scheduler.get('by_epoch', True)
        end = ends[by_epoch]
        name = f'param_scheduler.{i} ({scheduler["type"]})'
        training = f'the training ends after {end:.0f} {unit[by_epoch]}s'
        late = [s for s in scheduler.get('milestones') or () if s >= end]
        if scheduler.get('begin', 0) >= end:
            yield f'{name} begins at {unit[by_epoch]} {scheduler.begin}, but {training}'
        elif late:
            yield f'{name} has milestones {late}, but {training}'
        elif end < scheduler.get('end', 0) < math.inf:
            yield f'{name} lasts until {unit[by_epoch]} {scheduler.end}, but {training}'
    training = f'the training ends after {total} {unit[in_epochs]}s'
    begin = loop.get('val_begin', 1)
    if cfg.get('val_dataloader') is not None and begin > total:
        yield f'train_cfg.val_begin is {begin}, but {training}: nothing is evaluated'
    saving = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    interval, by_epoch = saving.get('interval', -1), saving.get('by_epoch', True)
    if interval > ends[by_epoch] and not saving.get('save_last', True):
        yield f'checkpoints are saved each {interval} {unit[by_epoch]}s, but {training}: none is'
