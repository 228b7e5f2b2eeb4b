"""Overrides from the command line that do not fit a config."""

import pytest

from mmdense.engine.config import read_config
from mmdense.errors import UserError


@pytest.mark.parametrize(
    'options', [{'a.0.b': 1}, {'a.5': 1}, {'a.x': 1}], ids=lambda options: next(iter(options))
)
def test_overrides_below_what_is_no_dict(options, tmp_path):
    (tmp_path / 'a.py').write_text('a = [1, 2]\nb = dict(c=1)\n')
    with pytest.raises(UserError, match=r'^--cfg-options do not fit this config: .+') as error:
        read_config(str(tmp_path / 'a.py'), options)
    assert '\n' not in str(error.value)
    assert read_config(str(tmp_path / 'a.py'), {'b.c': 5}).b == dict(c=5)
