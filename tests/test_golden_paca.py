"""PaCaViT is the published function: the original's weights give the original's numbers.

Run in both precisions: a wrong epsilon or an approximate GELU passes in float32 and fails in
float64.
"""

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

from mmdense.engine.checkpoint import convert_paca

VARIANTS = {
    'tiny': 'pacavit_tiny_p2cconv_100_0',
    'small': 'pacavit_small_p2cconv_100_0',
    'base': 'pacavit_base_p2cconv_100_0',
}
DTYPES = [torch.float32, torch.float64]


def build_classifier(arch: str, dims: int, **kwargs) -> torch.nn.Module:
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='mmdense.PaCaViT', arch=arch, out_indices=(3,), **kwargs),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=1000, in_channels=dims),
        )
    ).eval()


@pytest.fixture(scope='module', params=VARIANTS)
def reference(request, golden):
    return request.param, golden(VARIANTS[request.param])


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_logits_equal_the_original(reference, dtype):
    arch, ref = reference
    model = build_classifier(arch, ref.manifest['state'][-2][1][1])
    assert sum(p.numel() for p in model.parameters()) == ref.manifest['num_params']
    model.load_state_dict(convert_paca(ref.state(torch.float32)), strict=True)
    model.to(dtype)
    spec = ref.manifest['classification']
    with torch.inference_mode():
        logits = model(ref.image(spec['input'], dtype), mode='tensor').numpy()
    if dtype == torch.float64:
        np.testing.assert_allclose(logits, ref.vectors['logits_f64'], rtol=0, atol=1e-8)
    else:
        atol = max(5e-5, 30 * spec['f32_vs_f64_max_abs'])
        np.testing.assert_allclose(logits, ref.vectors['logits'], rtol=0, atol=atol)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('form', ['feature', 'segmentation_feature'])
def test_maps_equal_the_original(reference, form, dtype):
    """Dense form with the paper's M = 100, and with M = 200 as in segmentation."""
    arch, ref = reference
    spec = ref.manifest[form]
    clusters = spec.get('downstream_cluster_num', (100, 100, 100, 0))
    shapes = {key: new for key, _, new in spec['keys']['shape_differs']}
    model = MODELS.build(dict(type='mmdense.PaCaViT', arch=arch, clusters=clusters)).eval()
    assert sum(p.numel() for p in model.parameters()) == spec['num_params']
    state = convert_paca(ref.state(torch.float32, shapes))
    model.load_state_dict(
        {k.removeprefix('backbone.'): v for k, v in state.items() if not k.startswith('head.')},
        strict=True,
    )
    model.to(dtype)
    for name, vector in spec['vectors'].items():
        with torch.inference_mode():
            maps = model(ref.image(vector['input'], dtype))
        for i, (stage, got) in enumerate(zip(vector['stages'], maps, strict=True), start=1):
            assert list(got.shape) == stage['shape']
            if dtype == torch.float64:
                atol = 2e-7 * max(1, stage['max_abs'])
                means = {'chan_mean': got.mean((2, 3)), 'loc_mean': got.mean(1)}
                for kind, mean in means.items():
                    want = ref.vectors[f'{name}_stage{i}_{kind}']
                    np.testing.assert_allclose(mean.numpy(), want, rtol=0, atol=atol)
            else:
                atol = max(5e-5, 30 * stage['f32_vs_f64_max_abs'])
                want = ref.vectors[f'{name}_stage{i}']
                got = got[:, :: stage['channel_step']].numpy()
                np.testing.assert_allclose(got, want, rtol=0, atol=atol)
