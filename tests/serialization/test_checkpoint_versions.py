"""Checkpoints of version 0.1 load strictly and give the same maps."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS

FILE = Path(__file__).parent / 'version_0.1.pth'  # half precision, to be small
NAMES = ['PaCaViT', 'PaCaViT-teacher', 'GroupMixFormer', 'FCViT', 'MSFViT']


@pytest.mark.parametrize('name', NAMES)
def test_version_0_1(name):
    saved = torch.load(FILE, weights_only=True)[name]
    model = MODELS.build(dict(type=f'mmdense.{name.split("-")[0]}', **saved['options'])).eval()
    model.load_state_dict(saved['state_dict'], strict=True)
    image = torch.linspace(-1, 1, 3 * 64 * 96).view(1, 3, 64, 96)
    with torch.no_grad():
        means = [feature.mean(dim=(2, 3))[0] for feature in model(image)]
    for found, expected in zip(means, saved['means'], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
