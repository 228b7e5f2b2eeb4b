"""What is said of a family is said in its own module."""

import ast
import re
from pathlib import Path

from helpers import ROOT

from mmdense.families import FAMILIES

OWN = ('backbones', 'families', 'heads')
WORDS = {family.backbone.__name__ for family in FAMILIES} | {family.name for family in FAMILIES}


def words_of(path: Path) -> set[str]:
    """Identifiers, and words of strings, of a module's code; docstrings are prose."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.alias):
            found.add(node.id if isinstance(node, ast.Name) else node.name)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.update(re.findall(r'[^\W_]+', node.value))
    return found


def test_no_family_is_named_elsewhere():
    rooms = [folder.parent for folder in ROOT.glob('*/__init__.py')]
    files = [*ROOT.glob('*.py'), *(p for r in rooms if r.name not in OWN for p in r.glob('*.py'))]
    named = {
        str(path.relative_to(ROOT)): sorted(words_of(path) & WORDS)
        for path in files
        if words_of(path) & WORDS
    }

    assert named == {'tools/demo.py': ['paca']}  # the configs that it runs


def test_names_are_of_one_family_each():
    names = [name for family in FAMILIES for name in family.variants]
    assert len(names) == len(set(names))
    configs = {
        f'{family.name}/{variant.config}.py'
        for family in FAMILIES
        for variant in family.variants.values()
    }
    assert configs == {
        str(path.relative_to(ROOT / 'configs'))
        for path in (ROOT / 'configs').glob('[!_]*/*_in1k.py')
    }
