"""Faults that are planted into digit scenes, and the check that must see them."""

import json
from collections.abc import Callable
from pathlib import Path

from helpers import DIGIT_CONFIGS
from mmengine.config import Config

from mmdense.engine.data_checks import examine_contents

LOADERS = ('train_dataloader', 'val_dataloader')
SCENES = Path('data/digit_scenes')
TRAIN = SCENES / 'annotations' / 'instances_train.json'


def check(scope: str, change: Callable[[Config], None] = lambda cfg: None) -> dict[str, int]:
    cfg = Config.fromfile(DIGIT_CONFIGS[scope])
    change(cfg)
    return examine_contents(cfg, LOADERS)


def plant(change: Callable[[dict], object]) -> None:
    content = json.loads(TRAIN.read_text())
    change(content)
    TRAIN.write_text(json.dumps(content))


def renamed(content: dict) -> None:
    content['categories'][3]['name'] = 'three'
