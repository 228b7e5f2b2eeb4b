"""Every tensor or an error, but for what a module says may differ."""

import pytest
import torch
from torch import Tensor, nn

from mmdense.errors import UserError
from mmdense.serialization import loading
from mmdense.serialization.loading import load_pretrained, select_pretrained


@pytest.fixture(autouse=True)
def no_names_of_variants(monkeypatch):
    """Looking for a published variant builds them all; another test has that."""
    monkeypatch.setattr(loading, 'identify', lambda state: None)


class Clusters(nn.Module):
    """A layer whose clusters may have another number, and a norm that files may lack."""

    may_change_shape = r'^assign\.'
    may_be_absent = r'^norm\.'

    def __init__(self, number: int = 3, norm: bool = True) -> None:
        super().__init__()
        self.assign = nn.Linear(4, number, bias=False)
        self.proj = nn.Linear(4, 4)
        if norm:
            self.norm = nn.LayerNorm(4)


def tensors(prefix: str = '', **kwargs: object) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {prefix + key: value for key, value in Clusters(**kwargs).state_dict().items()}


@pytest.mark.parametrize(
    'kwargs, loaded',
    [
        (dict(), 5),
        (dict(number=7), 4),  # the clusters stay as they were
        (dict(norm=False), 3),  # and so does the norm
    ],
    ids=str,
)
def test_what_is_loaded_and_what_is_kept(kwargs, loaded, tmp_path):
    torch.save(dict(state_dict=tensors(**kwargs)), tmp_path / 'a.pth')
    torch.manual_seed(2)
    model = Clusters()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert load_pretrained(model, str(tmp_path / 'a.pth')) == loaded
    found = tensors(**kwargs)
    fitting = {k for k, v in found.items() if v.shape == before[k].shape}
    assert len(fitting) == loaded
    for key, value in model.state_dict().items():
        assert torch.equal(value, found[key] if key in fitting else before[key]), key


def test_a_norm_that_the_module_lacks_is_left_in_the_file():
    assert set(select_pretrained(Clusters(norm=False), tensors(), 'a')) == {
        'assign.weight',
        'proj.weight',
        'proj.bias',
    }


@pytest.mark.parametrize('prefix', ['backbone', 'backbone.'])
def test_prefix(prefix):
    """With or without its dot; names that merely begin alike are another module's."""
    state = tensors('backbone.') | {'backbone2.x': torch.ones(1), 'head.x': torch.ones(1)}
    assert set(select_pretrained(Clusters(), state, 'a', prefix)) == set(tensors())


@pytest.mark.parametrize(
    'change, message',
    [
        ({'proj.bias': None}, r'of 5 tensors, 1 missing \(proj.bias\)'),
        ({'wing': torch.ones(1)}, r'1 unexpected \(wing\)'),
        ({'proj.weight': torch.ones(5, 4)}, r'1 of another shape \(proj.weight \(5, 4\) for \(4,'),
        ({'assign.weight': torch.ones(9, 5)}, r'1 of another shape \(assign.weight \(9, 5\)'),
    ],
    ids=['missing', 'unexpected', 'shape', 'channels'],
)
def test_all_else_is_an_error(change, message):
    state = {k: v for k, v in (tensors() | change).items() if v is not None}
    with pytest.raises(UserError, match=message) as error:
        select_pretrained(Clusters(), state, 'a.pth', None)
    assert "'a.pth' (prefix '') does not hold this Clusters: " in str(error.value)
    assert '\n' not in str(error.value)


def test_a_file_with_other_names_says_which():
    with pytest.raises(UserError, match=r'3 missing .*; the file has 5 encoder\.\*$'):
        select_pretrained(Clusters(), tensors('encoder.'), 'a.pth', 'backbone.')


def test_what_is_kept_is_told(tmp_path, monkeypatch):
    torch.save(dict(state_dict=tensors(number=7)), tmp_path / 'a.pth')
    said = []
    monkeypatch.setattr(loading, 'print_log', lambda text, logger: said.append(text))
    load_pretrained(Clusters(), str(tmp_path / 'a.pth'))
    assert said == [
        'assign.weight (3, 4) is not in the file in this shape: kept',
        f"loaded 4 of 5 tensors from '{tmp_path / 'a.pth'}'",
    ]
    torch.save(dict(state_dict=tensors(norm=False)), tmp_path / 'a.pth')
    load_pretrained(Clusters(), str(tmp_path / 'a.pth'))
    assert sorted(text.split(' (')[0] for text in said[2:-1]) == ['norm.bias', 'norm.weight']


@pytest.mark.parametrize(
    'held, wanted, told',
    [('one', 'other', True), ('one', 'one', False), (None, 'one', False), ('one', None, False)],
)
def test_variants_are_named_where_both_are_known_and_differ(held, wanted, told, monkeypatch):
    names = {True: held, False: wanted}  # by whether it is the file's, which has a wing
    monkeypatch.setattr(loading, 'identify', lambda state: names['wing' in state])
    with pytest.raises(UserError) as error:
        select_pretrained(Clusters(), tensors() | {'wing': torch.ones(1)}, 'a.pth')
    assert ('the file is of one, the config wants other' in str(error.value)) == told
    assert ('the file is of' in str(error.value)) == told
