"""The PaCa head is the published function: published weights give published logits and losses."""

import pytest
import torch
from helpers import FAMILY, assert_near, build_in, float32_tolerance
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

(PACA_HEAD,) = FAMILY['paca'].head_naming
DTYPES = [torch.float32, torch.float64]


@pytest.fixture(scope='module', params=['pacaseghead', 'pacaseghead_base'])
def head_reference(request, golden):
    return golden(request.param)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_paca_head(head_reference, dtype):
    """Class logits, cluster logits and losses."""
    ref = head_reference
    cfg = {k: ref.manifest['config'][k] for k in ('in_channels', 'channels', 'num_classes')}
    loss = dict(type='mmseg.CrossEntropyLoss', avg_non_ignore=True)
    for averaged in (True, False):
        loss['avg_non_ignore'] = averaged
        head = build_in(
            'mmpretrain',
            dict(
                type='mmdense.PaCaSegHead',
                **cfg,
                norm_cfg=dict(type='BN'),
                loss_decode=dict(loss),
                loss_cluster=dict(loss, loss_name='loss_cluster', loss_weight=0.4),
            ),
        )
        assert sum(p.numel() for p in head.parameters()) == ref.manifest['num_params']
        head.load_state_dict(PACA_HEAD.convert(ref.state(torch.float32)), strict=True)
        head.to(dtype)
        inputs = [ref.image(spec, dtype) for spec in ref.manifest['inputs']]
        label = ref.label(ref.manifest['loss']['label'])
        samples = [
            SegDataSample(gt_sem_seg=PixelData(data=image_label[None])) for image_label in label
        ]
        with torch.inference_mode():
            logits = dict(zip(('logits', 'c_raw'), head.get_logits(inputs)))
            losses = head.loss(inputs, samples, {})
            assert torch.equal(head(inputs), logits['logits'])
        for name, got in logits.items():
            spec = ref.manifest['outputs'][name]
            if dtype == torch.float64:
                assert_near(got.mean((2, 3)), ref.vectors[f'{name}_class_mean'], 2e-6)
                assert_near(got.mean(1), ref.vectors[f'{name}_loc_mean'], 2e-6)
            else:
                assert_near(got[:, ::5], ref.vectors[name], float32_tolerance(spec))
        values = ref.manifest['loss'][f'values_f{dtype.itemsize * 8}']
        start = '' if averaged else 'avg_non_ignore=False '
        names = {
            'loss_ce': 'decode.loss_ce',
            'acc_seg': 'decode.acc_seg',
            'loss_cluster': 'paca.loss_ce',
            'acc_cluster': 'paca.acc_seg',
        }
        assert losses.keys() == names.keys()
        for name, published in names.items():
            rel = 1e-8 if dtype == torch.float64 else 1e-5
            assert losses[name].item() == pytest.approx(values[start + published], rel=rel)
