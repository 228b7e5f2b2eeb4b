"""The metrics of a file are those that its model has."""

import pytest
import torch
from helpers import DIGIT_CONFIGS
from mmengine.config import Config

from mmdense.engine.building import load_model
from mmdense.errors import UserError
from mmdense.inference.evaluate_file import build_validation, evaluate_file
from mmdense.inference.export import make_exported


@pytest.mark.parametrize('scope, name', [('mmpretrain', 'accuracy/top1'), ('mmseg', 'mIoU')])
@torch.no_grad()
def test_classifier_and_segmentor(scope, name, place, untrained):
    """The whole test path: resizing in the pipeline, and back to the picture's size; a detector's
    is in test_export_detector.py."""
    cfg = Config.fromfile(DIGIT_CONFIGS[scope])
    steps = cfg.val_dataloader.dataset.pipeline
    for step in steps:
        if step.type == 'Resize':
            step.scale = (96, 96)
    model = load_model(cfg, untrained(scope))
    for key, weight in model.named_parameters():  # of the last layer: no class is all there is
        if key.endswith(('head.fc.weight', 'decode_head.conv_seg.weight')):
            torch.nn.init.normal_(weight, std=3)
    module = make_exported(model, 'model', is_picture=True)
    found = evaluate_file(cfg, module, lambda picture: [module(picture)])
    loader, evaluator = build_validation(cfg)
    for batch in loader:
        evaluator.process(model.val_step(batch), batch)
    own = evaluator.evaluate(len(loader.dataset))
    assert own[name] > 0 and found.keys() == own.keys()
    assert [found[key] for key in own] == pytest.approx(list(own.values()), abs=0.02, nan_ok=True)


def test_no_validation(place, untrained):
    cfg = Config.fromfile(DIGIT_CONFIGS['mmpretrain'])
    cfg.val_dataloader = None
    with pytest.raises(UserError, match='no val_dataloader'):
        build_validation(cfg)
