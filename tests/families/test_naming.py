"""Published names become ours and back."""

from mmdense.families.naming import Naming, rename


def test_renaming_by_hand():
    """``{}`` is a number, ``^`` the start; pairs in order, each once, on what the others left."""
    pairs = [('^a.{}.b.{}.', 'x.{}.{}.'), ('.c', '.d'), ('.dd', '.e'), ('^norm.', 'out.')]
    names = ['a.1.b.23.w', 'z.a.1.b.2.w', 'q.c.c', 'q.cd', 'norm.w', 'x.norm.w', 'abc']
    state = {name: i for i, name in enumerate(names)}
    wanted = ['x.1.23.w', 'z.a.1.b.2.w', 'q.d.c', 'q.e', 'out.w', 'x.norm.w', 'abc']
    assert rename(state, pairs) == {name: i for i, name in enumerate(wanted)}


def test_what_is_renamed_can_be_restored():
    naming = Naming(r'a\.\d', lambda state: [('^a.{}.', 'x.{}.y.'), ('.c.', '.d.')])
    state = {'a.1.c.w': 1, 'a.2.e': 2}
    ours = naming.convert(state)
    assert ours == {'x.1.y.d.w': 1, 'x.2.y.e': 2}
    assert naming.restore(ours) == state
    assert naming.convert(ours) is ours  # has none of the published names
    chained = Naming(r'a\.', lambda state: [('^a.', 'b.'), ('^b.c.', 'd.')])
    state = {'a.c.w': 1, 'a.e': 2}
    assert chained.convert(state) == {'d.w': 1, 'b.e': 2}
    assert chained.restore(chained.convert(state)) == state
