"""Strict loading: a model gets all of its tensors from a file, or an error that shows why not."""

from __future__ import annotations

import torch
from mmengine.logging import print_log
from mmengine.model.weight_init import PretrainedInit, update_init_info
from torch import Tensor, nn

from ..errors import UserError
from ..registry import WEIGHT_INITIALIZERS
from .checkpoint import get_state_dict, load_file
from .conversion import identify
from .matching import describe_mismatch, describe_prefixes, find_exempt, find_mismatch


@WEIGHT_INITIALIZERS.register_module(name='Pretrained')
class StrictPretrainedInit(PretrainedInit):
    """``init_cfg=dict(type='Pretrained', checkpoint=..., prefix=...)`` of this package's backbones.

    mmengine's initializer, but a tensor that does not fit is an error, and not a warning.

    Args:
        checkpoint: File or URL.
        prefix: Only names that start with it are read, e.g. ``'backbone.'`` of a classifier.
        map_location: Of mmengine's; files are read to the CPU.
    """

    def __call__(self, module: nn.Module) -> None:
        """Load as :func:`load_pretrained` does, and raise what it raises."""
        load_pretrained(module, self.checkpoint, self.prefix)
        if hasattr(module, '_params_init_info'):  # what mmengine logs of initializations
            update_init_info(module, init_info=self._get_init_info())


def load_pretrained(module: nn.Module, checkpoint: str, prefix: str | None = None) -> int:
    """Load every tensor of ``module`` from a checkpoint file, or raise.

    Raises what :func:`select_pretrained` raises.

    Returns:
        How many tensors were loaded; it is logged too, and so are tensors that stay as they are.
    """
    state = get_state_dict(load_file(checkpoint))
    found = select_pretrained(module, state, checkpoint, prefix)
    check_numbers(found, checkpoint)
    own = module.state_dict()
    for key in own.keys() - found.keys():
        print_log(
            f'{key} {tuple(own[key].shape)} is not in the file in this shape: kept', 'current'
        )
    module.load_state_dict(found, strict=False)
    print_log(f"loaded {len(found)} of {len(own)} tensors from '{checkpoint}'", 'current')
    return len(found)


def select_pretrained(
    module: nn.Module, state: dict[str, Tensor], checkpoint: str, prefix: str | None = None
) -> dict[str, Tensor]:
    """The tensors of a checkpoint that ``module`` needs, by the module's names.

    Args:
        module: Would receive the tensors; it is not changed. Its ``may_change_shape`` is a pattern
            of names that are left out where the file has them in another shape, with as many
            channels (the last side); its ``may_be_absent`` of names that the file may lack, or have
            beside the module's.
        state: The checkpoint's tensors.
        checkpoint: What the file is called, for the error.
        prefix: Only names that start with it are read, e.g. ``'backbone.'`` of a classifier.

    Raises:
        UserError: When a tensor is missing, unexpected or of another shape.
    """
    prefix = f'{prefix.rstrip(".")}.' if prefix else ''
    found = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    own = module.state_dict()
    kept = find_exempt(own, found, *get_exemptions(module))
    loaded = {key: value for key, value in found.items() if key not in kept}
    needed = {key: value for key, value in own.items() if key not in kept}
    problem = describe_mismatch(find_mismatch(needed, loaded), len(needed))
    if problem:
        name = module.__class__.__name__
        hint = '' if found else f'; the file has {describe_prefixes(state)}'
        held, wanted = identify(found), identify(own)
        if held and wanted and held != wanted:
            hint = f'; the file is of {held}, the config wants {wanted}'
        raise UserError(
            f"'{checkpoint}' (prefix '{prefix}') does not hold this {name}: {problem}{hint}"
        )
    return loaded


def load_whole(module: nn.Module, state: dict[str, Tensor], checkpoint: str) -> None:
    """Load every tensor of a classifier, detector or segmentor from a checkpoint, or raise.

    Args:
        module: The model.
        state: The checkpoint's tensors.
        checkpoint: What the file is called, for the error.

    Raises:
        UserError: When a tensor is missing, of another shape, or not finite.
    """
    check_fit(module, state, checkpoint, whole_model=True)
    check_numbers(state, checkpoint)
    module.load_state_dict(state, strict=False)


def check_fit(
    module: nn.Module, state: dict[str, Tensor], checkpoint: str, whole_model: bool
) -> None:
    """Raise :class:`UserError` unless a checkpoint holds a model's tensors.

    Args:
        module: The model.
        state: The checkpoint's tensors.
        checkpoint: What the file is called, for the error.
        whole_model: All of them, and not only the backbone's: heads may differ when a run starts
            from another one's weights, since classes do.
    """
    own = {key.removeprefix('module.'): value for key, value in module.state_dict().items()}
    if not whole_model:
        inside, held = strip_backbone(own), strip_backbone(state)
        # As for pretrained files, the number of clusters and some norms may differ.
        exempt = find_exempt(inside, held, *get_exemptions(getattr(module, 'backbone', module)))
        own = {f'backbone.{k}': v for k, v in inside.items() if k not in exempt} or own
    found = {key: value for key, value in state.items() if key in own}
    problem = describe_mismatch(find_mismatch(own, found), len(own))
    if problem:
        part = type(module).__name__ if whole_model else 'backbone'
        raise UserError(
            f"checkpoint '{checkpoint}' is of another model than this {part}: {problem}"
        )


def check_numbers(state: dict[str, object], checkpoint: str) -> None:
    """Raise :class:`UserError` unless all weights are finite real numbers."""
    wrong = [
        name for name, value in state.items() if isinstance(value, Tensor) and not is_finite(value)
    ]
    if wrong:
        shown = ', '.join(map(str, wrong[:3])) + (', ...' if len(wrong) > 3 else '')
        raise UserError(
            f"checkpoint '{checkpoint}': {len(wrong)} of {len(state)} tensors hold NaN, infinite "
            f'or complex numbers ({shown}); take an earlier checkpoint'
        )


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinite nor complex numbers; one pass."""
    if tensor.is_complex():
        return False
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.element_size() == 1:  # of these, torch computes nothing
        tensor = tensor.float()
    return bool(torch.stack(tensor.detach().aminmax()).isfinite().all())


def strip_backbone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model's backbone by its own names."""
    prefix = 'backbone.'
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def get_exemptions(module: nn.Module) -> tuple[str | None, str | None]:
    """The patterns of names in which a file may differ from a backbone of this package."""
    return getattr(module, 'may_change_shape', None), getattr(module, 'may_be_absent', None)
