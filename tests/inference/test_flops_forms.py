"""Parameters, MACs and activations of a small network, counted by hand."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmdense.inference import flops
from mmdense.inference.flops import (
    ActivationCounter,
    Complexity,
    ExtraCounter,
    count_below,
    measure,
)

CLASSES = 5
HEIGHT, WIDTH = 8, 12


class Attend(nn.Module):
    """Attention of two heads, which has no parameters."""

    def forward(self, qkv: Tensor) -> Tensor:
        q, k, v = qkv.unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@MODELS.register_module()
class NetworkToCount(BaseModule):
    """One of each kind of operator."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 16, (1, 3), padding=(0, 1), groups=4, bias=False)
        self.up = nn.ConvTranspose2d(16, 6, 2, stride=2)
        self.qkv = nn.Linear(6, 18)
        self.ln = nn.LayerNorm(6)
        self.attend = Attend()

    def forward(self, x: Tensor) -> tuple[Tensor]:
        x = self.up(self.grouped(self.bn(self.conv(x))))
        size = x.shape[2:]
        x = self.attend(self.qkv(self.ln(x.flatten(2).transpose(1, 2))))
        return (x.transpose(1, 2).unflatten(2, size),)


FINE, COARSE = HEIGHT * WIDTH, HEIGHT * WIDTH // 4
PARAMS = dict(
    conv=8 * 3 * 9 + 8,
    bn=2 * 8,
    grouped=16 * (8 // 4) * 3,
    up=16 * 6 * 4 + 6,
    qkv=6 * 18 + 18,
    ln=2 * 6,
)
MACS = dict(
    conv=COARSE * 8 * 3 * 9,
    bn=0,
    grouped=COARSE * 16 * (8 // 4) * 3,
    up=COARSE * 16 * 6 * 4,  # every input meets the whole kernel
    qkv=FINE * 6 * 18,
    ln=0,
)
ATTENTION = 2 * FINE * FINE * 6  # q k^T and the sum over v, all heads together
HEAD = 6 * CLASSES
# What each operator puts out; of attention the weights of two heads, and the result.
ACTIVATIONS = COARSE * (8 + 16) + FINE * (6 + 18) + 2 * FINE * FINE + FINE * 6 + CLASSES


MODEL = dict(
    type='ImageClassifier',
    backbone=dict(type='NetworkToCount', in_channels=3),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=CLASSES, in_channels=6),
)


def count() -> Complexity:
    return measure(Config(dict(default_scope='mmpretrain', model=MODEL)), (HEIGHT, WIDTH))


@pytest.fixture(scope='module')
def counted() -> Complexity:
    return count()


def test_totals(counted):
    assert counted.params == sum(PARAMS.values()) + HEAD + CLASSES
    assert counted.macs == sum(MACS.values()) + ATTENTION + HEAD
    assert counted.shape == (HEIGHT, WIDTH)


def test_activations(counted):
    assert counted.activations == ACTIVATIONS


def test_modules(counted):
    for name, params in PARAMS.items():
        assert counted.modules[f'backbone.{name}'] == (params, MACS[name]), name
    assert counted.modules['backbone.attend'] == (0, ATTENTION)
    backbone = (sum(PARAMS.values()), sum(MACS.values()) + ATTENTION)
    assert counted.parts == dict(backbone=backbone, head=(HEAD + CLASSES, HEAD))
    assert counted.modules['head.fc'] == (HEAD + CLASSES, HEAD)


def test_a_backbone_of_no_family_is_counted_plainly(counted):
    assert counted.original.params == pytest.approx(counted.params / 1e6)
    assert counted.original.flops == pytest.approx(counted.macs / 1e9)


def test_what_a_family_is_told(counted, monkeypatch):
    """Matrices are all but biases and norms."""
    monkeypatch.setattr(flops, 'find_family', lambda backbone: SimpleNamespace(count=tuple))
    vectors = 8 + 2 * 8 + 6 + 18 + 2 * 6 + CLASSES
    assert count().original == (
        counted.params,
        counted.params - vectors,
        counted.macs,
        FINE * 6,
        COARSE * 8,
        (FINE - COARSE) * 16 * 6 * 4,
    )


def test_what_authors_add():
    """Norms by their elements; transposed convolutions as if at their output's size."""
    network, extra = NetworkToCount(), ExtraCounter()
    extra.watch(network)
    with torch.no_grad():
        network(torch.zeros(1, 3, HEIGHT, WIDTH))
    assert extra.layer_norm == FINE * 6
    assert extra.batch_norm == COARSE * 8
    assert extra.transposed == (FINE - COARSE) * 16 * 6 * 4


def test_activations_of_matrix_products():
    a, b = torch.zeros(2, 3, 4), torch.zeros(2, 4, 5)
    with ActivationCounter() as counter, torch.no_grad():
        (a @ b).relu() + 1
        nn.Linear(4, 7)(a)
    assert counter.total == 2 * 3 * 5 + 2 * 3 * 7


def test_of_a_module_that_is_not_called_its_children_count():
    outer = nn.ModuleDict(dict(a=nn.ModuleList([nn.Identity(), nn.Identity()]), b=nn.Identity()))
    counted = {'x.a.0': 3, 'x.a.1': 4, 'x.b': 10, 'y': 1}
    assert count_below('x', outer, counted) == 17
    assert count_below('x', outer, {**counted, 'x.a': 100}) == 110
    assert count_below('y', outer, counted) == 1
