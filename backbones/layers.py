"""What the backbones share: two views of one buffer, cluster assignment, recomputed blocks.

Axis legend: B batch, N = H*W tokens, M clusters, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Both views go through (B, H, W, C), whose strides are regular for a batch of one too. The shorter
# ways, e.g. flatten(2).transpose(1, 2), give that batch dimension a stride of C, there or in the
# gradient; convolutions then lose channels_last, and batch norm's CPU backward returns wrong
# numbers (seen in PyTorch 2.14: its input contiguous, the gradient channels_last in that way).


def to_tokens(feature_map: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C); a view when the map is channels_last."""
    return feature_map.permute(0, 2, 3, 1).flatten(1, 2)


def to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, N, C) -> (B, C, H, W), a channels_last view of the same memory."""
    return tokens.unflatten(1, size).permute(0, 3, 1, 2)


def join(parts: Sequence[Tensor]) -> Tensor:
    """Lots of images or tokens behind one another; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def assign_positions(x: Tensor, assign: nn.Linear, valid: Tensor | None) -> Tensor:
    """Z (B, M, N): a softmax over the (valid) positions of the tokens' (B, N, C) cluster logits."""
    # W x^T rather than (x W^T)^T: the softmax then runs along contiguous memory.
    logits = assign.weight @ x.transpose(1, 2)
    if assign.bias is not None:
        logits = logits + assign.bias[:, None]
    if valid is not None:
        logits = logits.masked_fill(~valid, float('-inf'))
    return logits.softmax(dim=-1)


def run_block(block: nn.Module, with_cp: bool, *args: object) -> object:
    """Call a block; with ``with_cp`` its activations are recomputed in the backward pass."""
    if with_cp and torch.is_grad_enabled():
        return checkpoint(block, *args, use_reentrant=False)
    return block(*args)
