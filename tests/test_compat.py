"""The bridge: mmcv's operators equal a compiled mmcv, the others say what to do."""

import os
import re
import subprocess
import sys
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmcv.ops import RoIAlign, batched_nms, nms, sigmoid_focal_loss, soft_nms

import mmdense.compat as compat
from mmdense.compat import MissingOpError

GOLDEN = Path(__file__).parent / 'golden' / 'mmcv_ops.npz'
needs_bridge = pytest.mark.skipif(
    not isinstance(sys.modules['mmcv._ext'], compat._TorchvisionOps),
    reason='a compiled mmcv is installed',
)


@pytest.fixture(scope='module')
def ref() -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(v) for k, v in np.load(GOLDEN).items()}


@pytest.mark.parametrize('aligned', [True, False], ids=['aligned', 'legacy'])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('size', [7, 14])
def test_roi_align_is_bit_equal(ref, size, sampling_ratio, aligned):
    feature = ref['feature'].clone().requires_grad_()
    pool = RoIAlign(size, 0.125, sampling_ratio, aligned=aligned)
    out = pool(feature, ref['rois'])
    name = f'roi_align_{size}_{sampling_ratio}_{"aligned" if aligned else "legacy"}'
    assert torch.equal(out[:, ::2], ref[name])
    grad = np.cos(np.arange(out.numel(), dtype=np.float32))
    out.backward(torch.from_numpy(grad).view_as(out))
    assert torch.equal(feature.grad[:, ::4], ref[f'{name}_grad'])


@pytest.mark.parametrize('channels', [3, 300])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('sampling_ratio', [0, 3])
@pytest.mark.parametrize('aligned', [True, False], ids=['aligned', 'legacy'])
def test_gradients_of_rois_are_added_in_the_order_of_torchvision(
    aligned, sampling_ratio, dtype, channels
):
    """Rois beyond the picture, turned inside out, on top of each other, and none."""
    centre, size = torch.rand(30, 2) * 150 - 10, torch.randn(30, 2) * 30 + 25
    rois = torch.cat([torch.arange(30)[:, None] % 2, centre - size / 2, centre + size / 2], 1)
    rois = torch.cat([rois, rois[:5].round()]).to(dtype)
    for number in (35, 0):
        grad, some = torch.randn(number, channels, 3, 5, dtype=dtype), rois[:number]
        shape = (2, channels, 13, 9)
        got = compat._spread(grad, some, shape, 0.1, sampling_ratio, aligned)
        want = torch.ops.torchvision._roi_align_backward(
            grad, some, 0.1, 3, 5, *shape, sampling_ratio, aligned
        )
        assert torch.equal(got, want)


def test_roi_align_takes_bfloat16_and_channels_last(ref):
    feature = ref['feature'].to(memory_format=torch.channels_last)
    pool = RoIAlign(7, 0.125, 0)
    want = pool(feature, ref['rois'])
    half = feature.bfloat16().requires_grad_()
    got = pool(half, ref['rois'])
    got.sum().backward()
    assert got.dtype == torch.bfloat16 and half.grad.isfinite().all()
    torch.testing.assert_close(got.float(), want, rtol=0.02, atol=0.05)


@pytest.mark.parametrize('iou', [0.3, 0.5, 0.7])
def test_nms_is_equal(ref, iou):
    _, keep = nms(ref['boxes'], ref['scores'], iou)
    assert torch.equal(keep, ref[f'nms_{iou}_keep'])
    cfg = dict(type='nms', iou_threshold=iou)
    dets, keep = batched_nms(ref['boxes'], ref['scores'], ref['idxs'], cfg)
    assert torch.equal(keep, ref[f'batched_nms_{iou}_keep'])
    assert torch.equal(dets, ref[f'batched_nms_{iou}_dets'])


def test_class_agnostic_nms_is_equal(ref):
    cfg = dict(type='nms', iou_threshold=0.5)
    _, keep = batched_nms(ref['boxes'], ref['scores'], ref['idxs'], cfg, class_agnostic=True)
    assert torch.equal(keep, ref['batched_nms_agnostic_keep'])


def test_nms_offset_counts_pixels():
    """With offset 1 a box from 0 to 9 is ten pixels wide, so these overlap by 50/150 = 1/3."""
    boxes = torch.tensor([[0.0, 0, 9, 9], [5, 0, 14, 9]])
    scores = torch.tensor([0.9, 0.8])
    assert len(nms(boxes, scores, 0.32, offset=1)[1]) == 1
    assert len(nms(boxes, scores, 0.32, offset=0)[1]) == 2  # 36/126 = 0.29


def test_soft_nms_is_equal(ref):
    dets, keep = soft_nms(ref['boxes'], ref['scores'], iou_threshold=0.5, method='linear')
    assert torch.equal(keep, ref['soft_nms_linear_keep'])
    assert torch.equal(dets, ref['soft_nms_linear_dets'])


@pytest.mark.parametrize('method', ['naive', 'gaussian'])
def test_soft_nms_methods(ref, method):
    dets, keep = soft_nms(ref['boxes'], ref['scores'], 0.5, 0.5, 1e-3, method)
    assert (dets[:-1, 4] >= dets[1:, 4]).all()
    if method == 'naive':  # plain NMS, less the box whose score is below min_score
        plain = ref['nms_0.5_keep']
        assert torch.equal(keep, plain[ref['scores'][plain] >= 1e-3])
    else:  # every overlap decays the score
        assert (dets[:, 4] <= ref['scores'][keep]).all()


def test_sigmoid_focal_loss_matches_the_formula():
    torch.manual_seed(0)
    logits = torch.randn(20, 5, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 6, (20,))  # 5 is background
    sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'sum').backward()
    got, logits.grad = logits.grad, None
    one_hot = torch.eye(6, dtype=torch.float64)[target][:, :5]
    p = logits.sigmoid()
    positive = -0.25 * (1 - p) ** 2 * p.log() * one_hot
    negative = -0.75 * p**2 * (1 - p).log() * (1 - one_hot)
    (positive + negative).sum().backward()
    torch.testing.assert_close(got, logits.grad)


@needs_bridge
def test_every_other_op_names_itself_and_the_remedy():
    """Each name that mmcv.ops asks of its extension exists, and raises when it is called."""
    names = set()
    for source in Path(mmcv.ops.__file__).parent.glob('*.py'):
        for call in re.findall(r"load_ext\(\s*'_ext',\s*\[(.*?)\]", source.read_text(), re.S):
            names |= set(re.findall(r"'(\w+)'", call))
    assert len(names) > 80
    ext = sys.modules['mmcv._ext']
    for name in names - set(compat._OPS):
        with pytest.raises(MissingOpError, match=f"'{name}' needs a compiled mmcv.*pip install"):
            getattr(ext, name)()


@needs_bridge
def test_a_missing_op_raises_when_used():
    from mmcv.ops import box_iou_rotated

    boxes = torch.rand(2, 5)
    with pytest.raises(MissingOpError, match='box_iou_rotated'):
        box_iou_rotated(boxes, boxes)


def test_max_pooling_roi_align_is_refused(ref):
    with pytest.raises(MissingOpError, match='pool_mode'):
        RoIAlign(7, 0.125, 0, pool_mode='max')(ref['feature'], ref['rois'])


def test_applying_twice_changes_nothing():
    before = sys.modules['mmcv._ext']
    compat.apply()
    assert sys.modules['mmcv._ext'] is before


NEW_TRANSFORMERS = """
import mmdense
import mmpretrain.models, mmpretrain.datasets, mmpretrain.apis, mmdet.models, mmseg.models
from mmpretrain.registry import MODELS
try:
    MODELS.build(dict(type='BlipCaption'))
except ImportError:
    print('left out')
"""


def test_a_transformers_that_mmpretrain_cannot_import(tmp_path):
    """One of version 5, empty but for its version, takes the vision-language models alone."""
    (tmp_path / 'transformers').mkdir()
    (tmp_path / 'transformers' / '__init__.py').touch()
    info = tmp_path / 'transformers-5.0.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: transformers\nVersion: 5.0.0\n')
    env = dict(os.environ, PYTHONPATH=str(tmp_path))
    command = [sys.executable, '-c', NEW_TRANSFORMERS]
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split('\n')[-2] == 'left out'
