"""What only GroupMixFormer has: segments."""

import pytest
import torch
from helpers import TINY, build


def test_width_that_is_not_five_segments():
    arch = dict(TINY['GroupMixFormer']['arch'], embed_dims=(16, 24, 32, 40))
    with pytest.raises(ValueError, match='not divisible by 5 segments'):
        build('GroupMixFormer', arch=arch)


@torch.no_grad()
def test_a_segment_at_a_time(monkeypatch):
    """Large maps give the same without q, k, v in one piece, unless somebody looks at the parts."""
    attn = build('GroupMixFormer').stages[1].blocks[0].attn.eval()
    x = torch.randn(2, 63, attn.proj.in_features)
    whole = attn(x, (9, 7))
    monkeypatch.setattr('mmdense.backbones.groupmixformer.SLICE_BYTES', 1)
    assert attn.may_split(x)
    torch.testing.assert_close(attn(x, (9, 7)), whole, rtol=1e-5, atol=1e-6)
    seen = []
    handle = attn.aggregator.segments[2][1].register_forward_hook(lambda *args: seen.append(args))
    torch.testing.assert_close(attn(x, (9, 7)), whole, rtol=1e-5, atol=1e-6)
    assert len(seen) == 1
    handle.remove()
    with torch.enable_grad():
        assert not attn.may_split(x)
