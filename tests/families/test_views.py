"""What is shown of a model is what it computes."""

import pytest
import torch
from helpers import TINY, build
from looking import IMAGE, QUERY

from mmdense.inference.visualize import find_watches, list_kinds, look


@pytest.mark.parametrize('name', TINY)
def test_looking_changes_nothing(name):
    model = build(name).eval()
    with torch.no_grad():
        before = model(IMAGE)
    outs = []
    views = look(model, lambda: outs.extend(model(IMAGE)), QUERY, list_kinds())
    for a, b in zip(before, outs, strict=True):  # what is looked at does not run fused with others
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert not any(module._forward_hooks for module in model.modules())
    assert views and views.keys() <= {watch.kind for watch, _ in find_watches(model)}
    for view in (view for found in views.values() for view in found):
        assert view.maps.isfinite().all() and len(view.labels) == len(view.maps)
        height, width = view.maps.shape[1:]
        assert (height * view.stride, width * view.stride) == IMAGE.shape[2:]


def test_hooks_go_after_an_error():
    model = build('FCViT')
    with pytest.raises(ZeroDivisionError):
        look(model, lambda: 1 / 0, QUERY, ('features',))
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize('name', TINY)
def test_every_kind_that_a_family_declares(name):
    """Of ordinary attention there is no displacement to see."""
    model = build(name).eval()
    kinds = {watch.kind for watch, _ in find_watches(model)}
    assert kinds - look(model, lambda: model(IMAGE), QUERY, list_kinds()).keys() == (
        {'displacement'} if name == 'MSFViT-orig' else set()
    )
