"""A detector's file finds what the detector's own test path finds."""

import functools
import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import CONFIGS, ROOT, SMALLEST_PACA
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmengine.config import Config
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from mmdense.engine.building import build_model
from mmdense.inference.evaluate_file import build_validation, evaluate_file
from mmdense.inference.export import (
    Preparation,
    Prepared,
    export_onnx,
    make_exported,
    open_onnx,
    prepare,
)
from mmdense.inference.export_detector import (
    compare_detections,
    find_mask_threshold,
    paste_masks,
    predict,
    suppress,
)

EXAMPLE = ROOT / 'docs' / 'examples' / 'run_onnx.py'
RUNNER = runpy.run_path(str(EXAMPLE))
SMALL_TWO_STAGE = dict(
    neck=dict(in_channels=[8] * 4, out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=8)),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=60), rcnn=dict(max_per_img=30)),
)
SMALL_MASK = dict(
    mask_roi_extractor=dict(out_channels=8),
    mask_head=dict(num_convs=1, in_channels=8, conv_out_channels=8),
)
BOX_HEAD = dict(in_channels=8, fc_out_channels=16)
# config and what makes it small; the last level of the pyramid has fewer anchors than nms_pre
DETECTORS = {
    'digits/mask_rcnn_paca_digits': dict(
        SMALL_TWO_STAGE,
        roi_head=dict(SMALL_TWO_STAGE['roi_head'], bbox_head=BOX_HEAD, **SMALL_MASK),
    ),
    'own/faster_rcnn_paca_own': dict(
        SMALL_TWO_STAGE, roi_head=dict(SMALL_TWO_STAGE['roi_head'], bbox_head=BOX_HEAD)
    ),
    'paca/cascade_mask_rcnn_paca_s_1x': dict(
        SMALL_TWO_STAGE, roi_head=dict(SMALL_TWO_STAGE['roi_head'], **SMALL_MASK)
    ),
    'paca/retinanet_paca_s_1x': dict(
        neck=dict(in_channels=[8] * 3, out_channels=8),
        bbox_head=dict(in_channels=8, feat_channels=8, stacked_convs=1, num_classes=10),
        test_cfg=dict(nms_pre=100, max_per_img=30),
    ),
}
MASKED = ['digits/mask_rcnn_paca_digits', 'paca/cascade_mask_rcnn_paca_s_1x']


def build_small(name: str) -> tuple[Config, nn.Module]:
    """A detector whose scores differ as those of a trained one do: no order hangs on roundings."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    cfg.merge_from_dict(dict(model=DETECTORS[name]))
    cfg.model.backbone.arch = SMALLEST_PACA
    for head in cfg.model.get('roi_head', {}).get('bbox_head', ()):
        if isinstance(head, dict):  # of a cascade
            head.update(BOX_HEAD)
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if key.endswith(('rpn_cls.weight', 'rpn_reg.weight', 'retina_cls.weight')):
                nn.init.normal_(weight, std=0.3)
            elif key.endswith(('fc_cls.weight', 'conv_logits.weight')):
                nn.init.normal_(weight, std=1)
            elif key.endswith(('fc_reg.weight', 'retina_reg.weight')):
                nn.init.normal_(weight, std=0.1)
            elif key.endswith('retina_cls.bias'):
                nn.init.constant_(weight, -2)
    model.dataset_meta = dict(classes=tuple('0123456789'))
    return cfg, model


@pytest.fixture(scope='session')
def scenes(digits: Path) -> list[Tensor]:
    """Twenty pictures (H, W, 3) RGB: digit scenes and parts of them, in ten sizes."""
    paths = sorted((digits / 'data' / 'digit_scenes' / 'images').glob('*/*.png'))[:10]
    whole = [cv2.imread(str(path))[..., ::-1] for path in paths]
    parts = [scene[5 + i : 120, 3 * i : 128 - 2 * i] for i, scene in enumerate(whole)]
    return [torch.from_numpy(np.ascontiguousarray(picture)) for picture in whole + parts]


def check_same(module: Prepared, run: Callable[[Tensor], list], pictures: list[Tensor]) -> int:
    """Every picture's detections are the model's; how many there were."""
    number = 0
    for picture in pictures:
        image, size = prepare(module, picture)
        expected = predict(module.network.model, image, size)
        found = [torch.as_tensor(output) for output in run(picture)]
        assert len(found) == len(module.network.output_names)
        threshold = find_mask_threshold(module.network.model)
        difference = compare_detections(found, expected, threshold)
        assert difference.missing == 0
        assert difference.boxes <= 1e-3 and difference.scores <= 1e-5
        assert difference.masks <= 1e-3
        number += len(expected)
    return number


@pytest.mark.parametrize('name', DETECTORS)
@torch.no_grad()
def test_restated_path(name, scenes):
    """In PyTorch, before any file: the detections are those of MMDetection's ``predict``."""
    _, model = build_small(name)
    module = make_exported(model, 'model', is_picture=True)
    assert check_same(module, module, scenes[::5]) > 20


@pytest.fixture(scope='module')
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Prepared, Path]]:
    """By name: a small detector that takes pictures, and its file."""

    @functools.cache
    def export(name: str) -> tuple[Prepared, Path]:
        _, model = build_small(name)
        module = make_exported(model, 'model', is_picture=True)
        path = tmp_path_factory.mktemp('exported') / 'detector.onnx'
        export_onnx(module, 3, path, {'classes': '[]'})
        return module, path

    return export


@pytest.mark.slow
@pytest.mark.parametrize('name', DETECTORS)
@torch.no_grad()
def test_file(name, scenes, exported):
    """Pictures go in as they are, in sizes that the file was not traced with, down to one cell."""
    module, path = exported(name)
    run = open_onnx(path)
    assert check_same(module, run, scenes) > 5 * len(scenes)
    check_same(module, run, [scenes[0][:20, :30], torch.zeros(64, 64, 3, dtype=torch.uint8)])
    session = onnxruntime.InferenceSession(path)
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ('image', 'tensor(uint8)', ['height', 'width', 3])
    ]
    shapes = {output.name: output.shape[:2] for output in session.get_outputs()}
    assert shapes['boxes'] == ['detections', 4] and shapes['labels'] == ['detections']
    assert ('masks' in shapes) == (name in MASKED)
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} == {''} and not model.functions
    onnx.checker.check_model(model)


@pytest.mark.slow
@torch.no_grad()
def test_average_precision(exported, place):
    """Of file and model, on digit scenes: where the model's best boxes count as the truth, no
    other's are right by chance."""
    module, path = exported(MASKED[0])
    model = module.network.model
    cfg, _ = build_small(MASKED[0])
    annotations = []
    for batch in build_validation(cfg)[0]:
        (sample,) = model.val_step(batch)
        for box, label, mask in list(
            zip(*(sample.pred_instances[k] for k in ('bboxes', 'labels', 'masks')))
        )[:6]:
            rle = coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
            x1, y1, x2, y2 = box.tolist()
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=sample.img_id,
                    category_id=int(label) + 1,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=int(coco_mask.area(rle)),
                    iscrowd=0,
                    segmentation=dict(rle, counts=rle['counts'].decode()),
                )
            )
    truth = Path(cfg.val_evaluator.ann_file)
    content = json.loads(truth.read_text())
    categories = [dict(id=i + 1, name=name) for i, name in enumerate('0123456789')]
    truth.write_text(json.dumps(dict(content, annotations=annotations, categories=categories)))
    expected = evaluate_file(cfg, module, module)  # the re-statement in PyTorch
    found = evaluate_file(cfg, module, open_onnx(path))
    loader, evaluator = build_validation(cfg)
    for batch in loader:
        evaluator.process(model.val_step(batch), batch)
    own = evaluator.evaluate(len(loader.dataset))
    for name in ('coco/bbox_mAP', 'coco/segm_mAP'):
        assert own[name] > 0.3
        assert found[name] == pytest.approx(own[name], abs=1e-3)
        assert expected[name] == pytest.approx(own[name], abs=1e-3)
    cfg.val_dataloader.dataset.indices = 1
    few = evaluate_file(cfg, module, module)  # the other scenes do not count as missed
    assert few['coco/bbox_mAP'] > 0.3 and few['coco/segm_mAP'] > 0.3


def test_paste_is_that_of_mmdet():
    """Boxes within the picture, across its border, and smaller than a pixel."""
    boxes = torch.tensor([[3.2, 4.7, 30.1, 25.5], [-6.0, 10, 12.5, 60], [20.2, 20.2, 20.6, 20.9]])
    masks = torch.rand(3, 28, 28)
    expected, _ = _do_paste_mask(masks[:, None], boxes, 40, 50, skip_empty=False)
    pasted = paste_masks(masks, boxes, 40, 50)
    torch.testing.assert_close(pasted, expected, rtol=0, atol=1e-5)
    for mask, box, whole in zip(masks.numpy(), boxes.numpy(), expected.numpy()):
        top, left, part = RUNNER['paste'](mask, box, 40, 50)
        alone = np.zeros((40, 50))
        alone[top : top + part.shape[0], left : left + part.shape[1]] = part
        np.testing.assert_allclose(alone, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize('part', ['roi_head', 'roi_head.bbox_head', 'rpn_head', ''])
def test_unknown_parts(part):
    """What derives from a part may have a test path of its own."""
    _, model = build_small(MASKED[0])
    module = model.get_submodule(part)
    module.__class__ = type('Another', (type(module),), {})
    with pytest.raises(ValueError, match=r'a.* Another .*not known here'):
        make_exported(model, 'model')


@pytest.mark.parametrize('to_rgb', [True, False])
def test_preparation_is_that_of_the_model(to_rgb, scenes):
    """Channels in the model's order, mean and deviation, padding at the bottom and on the right."""
    model = nn.Module()
    model.data_preprocessor = DetDataPreprocessor(
        mean=[120, 110, 100], std=[60, 50, 40], bgr_to_rgb=to_rgb, pad_size_divisor=32, pad_value=7
    )
    module = Prepared(Preparation(model, is_picture=True, is_padded=True), nn.Identity())
    for picture in scenes[8:12]:
        expected, size = prepare(module, picture)
        image, found = module.preparation(picture)
        assert image.shape[2] % 32 == image.shape[3] % 32 == 0 and (image == expected).all()
        assert tuple(found.tolist()) == size == tuple(picture.shape[:2])


def test_suppression():
    """Of boxes that overlap the best one stays; what is not above the threshold takes no part."""
    boxes = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 20, 9, 30.0]])
    scores = torch.tensor([0.6, 0.7, 0.8, 0.3])
    assert suppress(boxes, scores, 0.5, 0.1, 9).tolist() == [2, 1, 3]
    assert suppress(boxes, scores, 0.9, 0.3, 9).tolist() == [2, 1, 0]
    assert suppress(boxes, scores, 0.5, 0.1, 1).tolist() == [2]
    assert suppress(boxes, scores, 0.5, 0.9, 9).tolist() == []


def test_differences_are_seen():
    """A box that is moved, another label, a detection too many, a mask that is another."""
    boxes = torch.tensor([[0, 0, 10, 10], [20, 0, 30, 10.0]])
    labels, scores, masks = torch.tensor([1, 2]), torch.tensor([0.9, 0.8]), torch.ones(2, 28, 28)
    pixels = paste_masks(masks, boxes, 40, 40) >= 0.5
    expected = InstanceData(bboxes=boxes, labels=labels, scores=scores, masks=pixels)
    swapped = [t.flip(0) for t in (boxes, labels, scores, masks)]
    assert compare_detections(swapped, expected, 0.5) == (0, 0, 0, 0)
    moved = boxes + torch.tensor([0, 0, 0, 0.5])
    assert compare_detections([moved, labels, scores, masks], expected, 0.5).boxes == 0.5
    others = torch.tensor([1, 3])
    assert compare_detections([boxes, others, scores, masks], expected, 0.5).missing == 2
    one = [t[:1] for t in (boxes, labels, scores, masks)]
    assert compare_detections(one, expected, 0.5).missing == 1
    half = torch.cat((masks[:, :14], 0 * masks[:, 14:]), 1)
    found = compare_detections([boxes, labels, scores, half], expected, 0.5)
    assert found.masks == pytest.approx(50 / 1600)


@pytest.fixture(scope='module')
def mask_rcnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the tool needs: detector.py, a small one's config, and detector.pth."""
    folder = tmp_path_factory.mktemp('mask_rcnn')
    name = MASKED[0]
    _, model = build_small(name)
    torch.save(dict(state_dict=model.state_dict()), folder / 'detector.pth')
    changes = {**DETECTORS[name], 'backbone': dict(arch=dict(SMALLEST_PACA, _delete_=True))}
    (folder / 'detector.py').write_text(f"_base_ = 'mmdense::{name}.py'\nmodel = {changes!r}\n")
    return folder


@pytest.mark.slow
def test_tool_and_runner(mask_rcnn, digits, run_tool, tmp_path):
    """tools/export.py writes a detector; the example runs it where neither package nor torch is."""
    out = tmp_path / 'detector.onnx'
    files = [mask_rcnn / 'detector.py', mask_rcnn / 'detector.pth']
    code, printed, err = run_tool('export.py', *files, out, '--uint8')
    assert code == 0, err
    lines = printed.splitlines()
    assert sum('detections, boxes within' in line for line in lines) == 3
    assert lines[-1].startswith('model of this PaCaViT detector: ')
    (tmp_path / 'blocked.py').write_text(
        'import runpy, sys\n'
        "for name in ('torch', 'torchvision', 'mmdense', 'mmengine', 'mmcv', 'mmdet', 'cv2'):\n"
        '    sys.modules[name] = None\n'
        'sys.argv = sys.argv[1:]\n'
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    picture = digits / 'data' / 'digit_scenes' / 'images' / 'val' / '000000.png'
    for more in ([], ['--long-side', '96']):
        drawn = tmp_path / 'drawn.png'
        command = [sys.executable, tmp_path / 'blocked.py', EXAMPLE, out, picture, drawn]
        command += ['--score', '0.1', *more]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = [line.split() for line in done.stdout.splitlines()]
        assert found and all(name in '0123456789' for name, *_ in found)
        boxes = np.array([box for _, _, *box in found], float)
        assert boxes.max() <= 128 and boxes.max() > 100  # in the picture as it is on the disk
        image = cv2.imread(str(drawn))
        assert image.shape == (128, 128, 3) and (image != cv2.imread(str(picture))).any()
