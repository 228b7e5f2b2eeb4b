"""The shapes of makers.py, and folders of them."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from makers import MAKERS, Scene, make_scenes

from mmdense.intake.examining import Examination, examine


@pytest.fixture(scope='session')
def scenes() -> list[Scene]:
    return make_scenes()


@pytest.fixture(scope='session')
def made(scenes, tmp_path_factory) -> Callable[[str], Path]:
    """By name of a maker: its folder, which tests leave as it is."""
    folders: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name.replace(' ', '_')) / 'shapes'
            MAKERS[name].make(folders[name], scenes)
        return folders[name]

    return make


@pytest.fixture(scope='session')
def examined(made) -> Callable[[str], Examination]:
    """By name of a maker: what is found in its folder, which tests leave as it is."""
    return functools.cache(lambda name: examine(made(name)))


@pytest.fixture
def own(scenes, tmp_path) -> Callable[[str], Path]:
    """By name of a maker: a folder of the test's own with the first 15 shapes."""

    def make(name: str) -> Path:
        MAKERS[name].make(tmp_path / 'shapes', scenes[:15])
        return tmp_path / 'shapes'

    return make


@pytest.fixture
def there(tmp_path, monkeypatch) -> None:
    """Work dirs are made in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
