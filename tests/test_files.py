"""Files are written whole or not at all."""

import pytest

from mmdense.errors import UserError
from mmdense.files import replacing


def test_an_old_file_survives_a_failure(tmp_path):
    path = tmp_path / 'folder' / 'a.txt'
    with replacing(path) as part:
        part.write_text('old')
        assert part.suffix == '.txt' and not path.exists()
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text('new')
        1 / 0  # noqa: B018
    assert path.read_text() == 'old' and list(path.parent.iterdir()) == [path]
    with pytest.raises(UserError, match='cannot be written'), replacing(path / 'below'):
        pass
