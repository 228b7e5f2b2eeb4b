"""Classes and data sets of a written config."""

from pathlib import Path

import pytest

from mmdense.engine.config import read_config
from mmdense.engine.data import build_dataset
from mmdense.intake.datasets import set_classes
from mmdense.intake.examining import examine
from mmdense.intake.preparing import prepare

pytestmark = pytest.mark.usefixtures('there')


@pytest.mark.parametrize(
    'model, wanted',
    [
        (dict(backbone=dict(depth=1)), None),
        (dict(head=dict(num_classes=80, x=1)), dict(head=dict(num_classes=3))),
        (
            dict(heads=[dict(num_classes=80, x=1), dict(y=2)]),
            dict(heads=[dict(num_classes=3, x=1), dict(y=2)]),
        ),
        (
            dict(num_classes=2, loss=dict(class_weight=[1.0, 1.0, 0.1])),
            dict(num_classes=3, loss=dict(class_weight=[1.0, 1.0, 1.0, 0.1])),
        ),
    ],
)
def test_classes_are_counted_wherever_a_model_does(model, wanted):
    assert set_classes(model, 3) == wanted


@pytest.mark.parametrize('maker', ['coco', 'masks', 'classes'])
def test_what_the_toolbox_reads_is_not_converted(maker, own):
    prepare(examine(own(maker)), None, None)
    assert not Path('work_dirs/shapes/data').exists()


def test_a_test_split_is_tested_on(own):
    root = own('classes')
    for path in sorted(root.glob('train/*/*.png'))[::4]:
        (root / 'test' / path.parent.name).mkdir(parents=True, exist_ok=True)
        path.rename(root / 'test' / path.parent.name / path.name)
    path, _ = prepare(examine(root), None, None)
    cfg = read_config(str(path))
    assert [len(build_dataset(cfg, split)) for split in ('train', 'val', 'test')] == [9, 3, 3]
