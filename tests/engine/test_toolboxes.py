"""Where the three toolboxes differ."""

import pytest
from mmengine.config import Config

from mmdense.engine.testing import enable_tta
from mmdense.errors import UserError


def test_tta_needs_a_toolbox():
    with pytest.raises(UserError, match='default_scope'):
        enable_tta(Config(dict(default_scope='mmpose')))
