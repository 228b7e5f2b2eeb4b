"""Counts equal those of the authors' code, and what the papers print."""

from functools import cache

import pytest
import torch
import yaml
from helpers import CONFIGS, load_config
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmdense.backbones.msf import Attention
from mmdense.engine.building import build_model
from mmdense.engine.config import read_config
from mmdense.families import FAMILIES
from mmdense.inference.flops import Complexity, count, measure

# The authors' code at 224 x 224, in 1e9: convolutions, linear layers and every matrix product.
MACS = {
    'paca/paca_t': 3.219,
    'paca/paca_s': 5.501,
    'paca/paca_b': 9.537,
    'paca/paca_s_mlp': 5.864,
    'paca/paca_s_teacher': 5.482,
    'paca/paca_b_teacher': 9.771,
    'paca/paca_t_teacher': 3.424,
    'paca/paca_s_2_0': 4.640,
    'paca/paca_s_49_0': 5.053,
    'paca/paca_s_49_100': 5.273,
    'paca/paca_s_100_49': 5.336,
    'paca/paca_s_100': 5.568,
    'paca/paca_s_blockwise': 6.103,
    'groupmixformer/groupmixformer_m': 1.333,
    'groupmixformer/groupmixformer_t': 3.686,
    'groupmixformer/groupmixformer_s': 5.133,
    'groupmixformer/groupmixformer_b': 17.428,
    'groupmixformer/groupmixformer_l': 38.068,
    'fcvit/fcvit_tiny': 0.902,
    'fcvit/fcvit_b12': 2.645,
    'fcvit/fcvit_b24': 5.059,
    'fcvit/fcvit_b48': 9.885,
    'msf/msf_s_orig': 4.574,
    'msf/msf_s': 4.921,
    'msf/msf_s_g2': 4.227,
    'msf/msf_s_orig_g2': 4.054,
}


@cache
def measure_classifier(name: str) -> Complexity:
    return measure(load_config(f'{name}_in1k'), (224, 224))


@pytest.mark.parametrize('name', MACS)
def test_classifiers(name):
    found = measure_classifier(name)
    assert found.macs / 1e9 == pytest.approx(MACS[name], rel=1e-3, abs=6e-4)
    assert sum(part.macs for part in found.parts.values()) == found.macs
    assert sum(part.params for part in found.parts.values()) == found.params


def published(data: str) -> dict[str, float]:
    """Config -> published FLOPs in 1e9, of PaCa-ViT's table."""
    entries = yaml.safe_load((CONFIGS / 'paca' / 'metafile.yml').read_text())['Models']
    return {
        entry['Config'].removeprefix('configs/').removesuffix('.py'): float(
            entry['Published']['FLOPs'].split()[0]
        )
        for entry in entries
        if entry['Metadata']['Training Data'] == data and 'FLOPs' in entry.get('Published', {})
    }


@pytest.mark.parametrize('name, flops', published('COCO').items())
def test_detectors_as_published(name, flops):
    found = measure(load_config(name), (800, 1280))
    assert found.original.flops == pytest.approx(flops, rel=0.01)


@pytest.mark.parametrize('name, flops', published('ADE20K').items())
def test_segmentors_as_published(name, flops):
    found = measure(load_config(name), (512, 512))
    assert found.original.flops == pytest.approx(flops, rel=0.01)


def test_published_conventions():
    found = measure_classifier('groupmixformer/groupmixformer_t').original
    assert found.flops == pytest.approx(3.72, abs=0.005)
    found = measure_classifier('fcvit/fcvit_b48').original
    assert found.params == pytest.approx(49.1, abs=0.05)
    for name, params in (('msf_s', 23.68), ('msf_s_g2', 20.14), ('msf_s_orig', 21.91)):
        found = measure_classifier(f'msf/{name}').original
        assert found.params == pytest.approx(params, abs=0.005)


def test_counter_closed_form_and_meta_agree():
    """One mean-shift attention layer: projections N (4 + 1) D^2, products 2 N^2 D."""
    tokens, dim = 50, 64
    layer = Attention(dim, num_heads=4, kind='msf', groups=1, order='interleave')
    counts = []
    for device in ('cpu', 'meta'):
        layer = layer.to(device) if device == 'cpu' else nn.Module.to(layer, device)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            layer(torch.empty(1, tokens, dim, device=device))
        counts.append(counter.get_total_flops() // 2)
    assert counts == [5 * tokens * dim**2 + 2 * tokens**2 * dim] * 2


@pytest.mark.parametrize('family', FAMILIES, ids=lambda family: family.name)
def test_as_many_on_a_cpu(family):
    """Of each module, of maps so large that a CPU takes products in parts, and in place."""
    cfg = load_config(f'{family.name}/{next(iter(family.variants.values())).config}')
    on_cpu, on_meta = (count(cfg, (512, 512), device) for device in ('cpu', 'meta'))
    assert on_cpu == on_meta


@pytest.mark.parametrize('backbone', ['resnet', 'convnext'])
def test_models_that_ask_for_numbers(backbone, monkeypatch):
    """MMPretrain's cannot be built without them; every convolution and linear layer is counted."""
    monkeypatch.setenv('BACKBONE', backbone)
    cfg = read_config('study/classifier')
    macs = []

    def add(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        macs.append(output.numel() * layer.weight[0].numel())

    model = build_model(cfg)
    with pytest.raises(RuntimeError, match='meta'):
        build_model(cfg, 'meta')
    for layer in model.backbone.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(add)
    with torch.no_grad():
        model.backbone(torch.rand(1, 3, 48, 48))
    found = measure(cfg, (48, 48))
    assert found.parts['backbone'].macs == sum(macs)
    assert found.params == sum(p.numel() for p in model.parameters())
