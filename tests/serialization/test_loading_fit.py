"""Which checkpoints fit a model: as a whole, or by the backbone alone."""

import pytest
import torch
from torch import nn

from mmdense.errors import UserError
from mmdense.serialization.checkpoint import get_state_dict
from mmdense.serialization.loading import check_fit, load_whole


class Model(nn.Module):
    """A backbone of one layer, and a head of so many classes."""

    def __init__(self, classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, width)
        self.head = nn.Linear(4, classes)


def state_of(*args: int, wrapped: str = '') -> dict:
    state = {wrapped + k: v for k, v in Model(*args).state_dict().items()}
    return get_state_dict(dict(state_dict=state))


def test_other_classes_may_start_a_training_but_not_be_tested():
    check_fit(Model(), state_of(7), 'a.pth', whole_model=False)
    with pytest.raises(UserError, match=r"'a.pth' is of another model than this Model: of 4 tenso"):
        check_fit(Model(), state_of(7), 'a.pth', whole_model=True)
    for whole_model in (False, True):
        check_fit(Model(), state_of(), 'a.pth', whole_model)
        check_fit(Model(), state_of(wrapped='module.'), 'a.pth', whole_model)


def test_a_model_is_loaded_with_its_head_or_not_at_all():
    with pytest.raises(UserError, match=r"'a.pth' is of another model than this Model: of 4 tenso"):
        load_whole(Model(), state_of(7), 'a.pth')


@pytest.mark.parametrize('whole_model', [False, True])
def test_another_backbone_is_always_refused(whole_model):
    part = 'Model: of 4 tensors, ' if whole_model else 'backbone: of 2 tensors, '
    with pytest.raises(UserError, match=part + r'2 of another shape \(backbone.weight \(5, 2\) fo'):
        check_fit(Model(), state_of(3, 5), 'a.pth', whole_model)
    less = state_of()
    del less['backbone.bias']
    with pytest.raises(UserError, match=r'1 missing \(backbone.bias\)'):
        check_fit(Model(), less, 'a.pth', whole_model)


def test_what_a_checkpoint_has_beside_the_model_is_no_matter():
    more = state_of()
    more['teacher.weight'] = torch.zeros(1)
    check_fit(Model(), more, 'a.pth', whole_model=True)
    model = Model()
    load_whole(model, more, 'a.pth')
    assert torch.equal(model.head.bias, more['head.bias'])


def test_a_model_without_a_backbone_is_compared_as_a_whole():
    check_fit(nn.Linear(2, 3), nn.Linear(2, 3).state_dict(), 'a.pth', whole_model=False)
    with pytest.raises(UserError, match='2 of another shape'):
        check_fit(nn.Linear(2, 3), nn.Linear(2, 4).state_dict(), 'a.pth', whole_model=False)


@pytest.mark.parametrize('whole_model', [False, True])
def test_a_wrapped_model_has_the_names_of_its_model(whole_model):
    wrapped = nn.Module()
    wrapped.module = Model()
    check_fit(wrapped, state_of(), 'a.pth', whole_model)
    with pytest.raises(UserError, match='2 of another shape'):
        check_fit(wrapped, state_of(3, 5), 'a.pth', whole_model)


def test_a_head_alone_is_no_backbone():
    heads = {k: v for k, v in state_of().items() if k.startswith('head.')}
    with pytest.raises(UserError, match='2 missing'):
        check_fit(Model(), heads, 'a.pth', whole_model=False)
