"""What checks say of lists."""

from mmdense.engine.findings import compare, spread


def test_lists():
    assert spread([1, 2, 3], 3) == [1, 2, 3] and spread(range(10), 2) == [0, 5]
    assert compare(['a', 'b'], ['a', 'b']) == ''
    assert compare(['cat'], ['cat', 'dog']) == '1 are there beside: dog'
