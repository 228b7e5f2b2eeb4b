"""The recipes as their papers and released code have them, and what this project chose where they
have none.

A module for each folder of configs, with rows for patterns of names: every config is of exactly one
row of ``RECIPES``. ``get_recipe`` of ``test_configs.py`` says a config in the same words.
"""

from importlib import import_module
from pkgutil import iter_modules

_modules = [import_module(f'recipes.{module.name}') for module in iter_modules(__path__)]
RECIPES: dict[str, dict] = {
    pattern: row for module in _modules for pattern, row in getattr(module, 'RECIPES', {}).items()
}
