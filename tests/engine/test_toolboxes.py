"""What the toolboxes' rows make: made-up labels, predictions as plain data."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample
from pycocotools import mask as coco_mask
from torch import nn

from mmdense.engine.toolboxes import (
    TOOLBOXES,
    check_model_config,
    describe_shapes,
    find_toolbox,
)
from mmdense.errors import UserError
from mmdense.inference import drawing
from mmdense.inference.predict import describe, predict

SHAPE = (60, 90)
CLASSES = ('ape', 'bee', 'cat', 'dog', 'elk', 'fox', 'gnu')


def cfg_of(scope: str) -> Config:
    return Config(dict(default_scope=scope, model=dict(backbone=dict(type='Any'))))


def test_shapes_in_words():
    words = '224 224 for a classifier, 800 1280 for a detector, 512 512 for a segmentor'
    assert describe_shapes() == words


@pytest.mark.parametrize(
    'scope, task, sample',
    [
        ('mmpretrain', 'classifier', DataSample),
        ('mmdet', 'detector', DetDataSample),
        ('mmseg', 'segmentor', SegDataSample),
    ],
)
def test_rows_are_found_by_scope(scope, task, sample):
    toolbox = find_toolbox(cfg_of(scope))
    assert toolbox is TOOLBOXES[scope]
    assert (toolbox.task, toolbox.sample) == (task, sample)


def test_sizes_of_images_that_figures_are_published_for():
    """(height, width): ImageNet's, COCO's and ADE20K's."""
    sizes = {scope: toolbox.shape for scope, toolbox in TOOLBOXES.items()}
    assert sizes == dict(mmpretrain=(224, 224), mmdet=(800, 1280), mmseg=(512, 512))


class Record(nn.Module):
    """A head that keeps the shape of what it is given."""

    def __init__(self, seen: list) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen = seen

    def forward(self, x: object) -> None:
        self.seen.append(tuple(x.shape) if isinstance(x, torch.Tensor) else x)


def make_extractor(channels: int, side: int) -> SimpleNamespace:
    return SimpleNamespace(
        out_channels=channels, roi_layers=[SimpleNamespace(output_size=(side,) * 2)]
    )


def test_heads_of_one_stage_see_the_maps():
    seen = []
    model = SimpleNamespace(bbox_head=Record(seen))
    TOOLBOXES['mmdet'].run_heads(model, 'maps', SHAPE)
    assert seen == ['maps']


@pytest.mark.parametrize('stages', [1, 3])
def test_heads_of_two_stages_see_regions(stages):
    """A thousand boxes and a hundred masks, in each stage of a cascade."""
    seen = []
    boxes = [Record(seen) for _ in range(stages)]
    extractors = [make_extractor(6, 7) for _ in range(stages)]
    roi_head = SimpleNamespace(
        bbox_head=boxes[0] if stages == 1 else nn.ModuleList(boxes),
        bbox_roi_extractor=extractors[0] if stages == 1 else extractors,
        mask_head=Record(seen),
        mask_roi_extractor=make_extractor(5, 14),
    )
    model = SimpleNamespace(rpn_head=Record(seen), roi_head=roi_head)
    TOOLBOXES['mmdet'].run_heads(model, 'maps', SHAPE)
    assert seen == ['maps', *[(1000, 6, 7, 7)] * stages, (100, 5, 14, 14)]
    del roi_head.mask_head
    TOOLBOXES['mmdet'].run_heads(model, 'maps', SHAPE)
    assert len(seen) == 2 + stages + 1 + stages


def test_a_mask_may_be_the_only_head():
    """And heads come on the device of their weights."""
    seen = []
    head = Record(seen).to('meta')
    roi_head = SimpleNamespace(mask_head=head, mask_roi_extractor=make_extractor(5, 14))
    model = SimpleNamespace(rpn_head=Record(seen), roi_head=roi_head)
    head.register_forward_pre_hook(lambda _, args: seen.append(args[0].device.type))
    TOOLBOXES['mmdet'].run_heads(model, 'maps', SHAPE)
    assert seen == ['maps', 'meta', (100, 5, 14, 14)]


@pytest.mark.parametrize('parts', [dict(), dict(decoder=1), dict(decoder=1, bbox_head=2)])
def test_detectors_of_other_kinds(parts):
    with pytest.raises(UserError, match='the heads of a SimpleNamespace are not known here'):
        TOOLBOXES['mmdet'].run_heads(SimpleNamespace(**parts), 'maps', SHAPE)


def test_the_one_head_of_classifiers_and_segmentors():
    """Mask2Former's wants to know the image's size besides."""
    seen = []
    TOOLBOXES['mmpretrain'].run_heads(SimpleNamespace(head=seen.append), 'vectors', SHAPE)
    TOOLBOXES['mmseg'].run_heads(SimpleNamespace(decode_head=Record(seen)), 'maps', SHAPE)
    assert seen == ['vectors', 'maps']

    class Mask2FormerHead:
        transformer_decoder = None

        def __call__(self, maps: object, samples: list) -> None:
            seen.append((maps, [sample.img_shape for sample in samples]))

    TOOLBOXES['mmseg'].run_heads(SimpleNamespace(decode_head=Mask2FormerHead()), 'maps', SHAPE)
    assert seen[2:] == [('maps', [SHAPE])]


def test_made_up_classes_and_label_maps():
    sample = DataSample()
    TOOLBOXES['mmpretrain'].label(sample, SHAPE, 3)
    assert sample.gt_label.tolist() == [0]
    torch.manual_seed(0)
    sample = SegDataSample()
    TOOLBOXES['mmseg'].label(sample, SHAPE, 3)
    assert sample.gt_sem_seg.data.shape == (1, *SHAPE)
    assert sample.gt_sem_seg.data.unique().tolist() == [0, 1, 2]


def test_predictions_come_without_logits():
    """Which are as large as the picture times the classes."""
    sample = SegDataSample(
        pred_sem_seg=PixelData(data=torch.zeros(1, 4, 4)), seg_logits=PixelData()
    )
    found = predict(SimpleNamespace(test_step=lambda batch: [sample]), {})
    assert 'pred_sem_seg' in found and 'seg_logits' not in found


@pytest.mark.parametrize(
    'cfg',
    [
        dict(default_scope='mmdet'),
        dict(default_scope='mmdet', model=None),
        dict(default_scope='mmdet', model=dict(type='X')),
        dict(default_scope='mmpose', model=dict(backbone=dict())),
        dict(model=dict(backbone=dict())),
    ],
    ids=str,
)
def test_other_configs_are_refused(cfg):
    with pytest.raises(
        UserError,
        match=r"^'it' is no config of a classifier, detector or segmentor with a backbone$",
    ):
        check_model_config(Config(cfg))


def test_other_scopes_have_no_row():
    with pytest.raises(UserError, match="default_scope 'mmpose' is none of mmpretrain, mmdet"):
        find_toolbox(Config(dict(default_scope='mmpose')))


def test_made_up_boxes_lie_in_the_image_and_masks_fill_them():
    torch.manual_seed(0)
    sample = DetDataSample()
    TOOLBOXES['mmdet'].label(sample, SHAPE, 3)
    found = sample.gt_instances
    assert len(found) == 8 and len(sample.ignored_instances) == 0
    assert found.masks.masks.shape == (8, *SHAPE)
    assert (found.masks.height, found.masks.width) == SHAPE
    for (left, top, right, bottom), mask in zip(found.bboxes.tolist(), found.masks.masks):
        assert 0 <= left < right <= SHAPE[1] and 0 <= top < bottom <= SHAPE[0]
        assert right - left == pytest.approx(30) and bottom - top == pytest.approx(20)
        rows, columns = np.nonzero(mask)
        assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert np.abs(np.array([columns.min() - left, rows.min() - top])).max() < 1
        assert np.abs(np.array([columns.max() + 1 - right, rows.max() + 1 - bottom])).max() <= 1
    assert len({tuple(box) for box in found.bboxes.tolist()}) == 8


def test_made_up_labels_of_instances_are_any_of_the_classes():
    seen = set()
    for seed in range(10):
        torch.manual_seed(seed)
        sample = DetDataSample()
        TOOLBOXES['mmdet'].label(sample, SHAPE, 3)
        seen |= set(sample.gt_instances.labels.tolist())
    assert seen == {0, 1, 2}


def test_made_up_labels_of_images_and_pixels():
    sample = DataSample()
    TOOLBOXES['mmpretrain'].label(sample, SHAPE, 5)
    assert sample.gt_label.tolist() == [0]
    sample = SegDataSample()
    TOOLBOXES['mmseg'].label(sample, SHAPE, 5)
    assert sample.gt_sem_seg.data.shape == (1, *SHAPE)
    assert sample.gt_sem_seg.data.unique().tolist() == [0, 1, 2, 3, 4]


def test_a_class_is_described_by_its_five_best():
    scores = torch.tensor([0.05, 0.3, 0.02, 0.25, 0.2, 0.08, 0.1])
    found = describe(cfg_of('mmpretrain'), DataSample().set_pred_score(scores), CLASSES, 0.3)
    assert found['labels'] == [1, 3, 4, 6, 5]
    assert found['classes'] == ['bee', 'dog', 'elk', 'gnu', 'fox']
    assert found['scores'] == pytest.approx([0.3, 0.25, 0.2, 0.1, 0.08])
    few = describe(cfg_of('mmpretrain'), DataSample().set_pred_score(scores[:2]), CLASSES, 0)
    assert few['labels'] == [1, 0]
    json.dumps(found)


def make_instances(**fields: object) -> DetDataSample:
    """Three boxes, apart, with scores below, at and above one half."""
    boxes = torch.tensor([[0.0, 0, 20, 20], [30, 0, 50, 20], [0, 30, 20, 50]])
    instances = InstanceData(
        bboxes=boxes,
        labels=torch.tensor([2, 0, 1]),
        scores=torch.tensor([0.25, 0.5, 0.75]),
        **fields,
    )
    return DetDataSample(pred_instances=instances)


def test_instances_from_the_threshold_on_are_described():
    found = describe(cfg_of('mmdet'), make_instances(), CLASSES, 0.5)
    assert found == dict(
        labels=[0, 1],
        classes=['ape', 'bee'],
        scores=[0.5, 0.75],
        bboxes=[[30, 0, 50, 20], [0, 30, 20, 50]],
    )
    assert describe(cfg_of('mmdet'), make_instances(), CLASSES, 0.51)['labels'] == [1]
    assert describe(cfg_of('mmdet'), make_instances(), CLASSES, 0.76)['labels'] == []


def test_masks_are_described_as_run_lengths():
    masks = torch.zeros(3, *SHAPE, dtype=torch.bool)
    masks[2, 30:50, 5:15] = True
    found = describe(cfg_of('mmdet'), make_instances(masks=masks), CLASSES, 0.6)
    json.dumps(found)
    (rle,) = found['masks']
    assert rle['size'] == list(SHAPE)
    np.testing.assert_array_equal(coco_mask.decode(rle), masks[2].numpy())


def test_pixels_are_described_by_their_shares():
    labels = torch.zeros(1, 6, 5, dtype=torch.long)
    labels[:, :, 0] = 3
    labels[:, 0, 1] = 1
    sample = SegDataSample(pred_sem_seg=PixelData(data=labels))
    found = describe(cfg_of('mmseg'), sample, CLASSES, 0.3)
    assert found['labels'] == [0, 1, 3] and found['classes'] == ['ape', 'bee', 'dog']
    assert found['shares'] == [round(23 / 30, 6), round(1 / 30, 6), 0.2]
    json.dumps(found)


@pytest.mark.parametrize('threshold, drawn', [(0.25, 3), (0.5, 2), (0.51, 1), (0.76, 0)])
def test_instances_from_the_threshold_on_are_drawn(threshold, drawn):
    """The same ones as are described; counted by their boxes' borders."""
    meta = dict(classes=CLASSES[:3], palette=[[255, 0, 0]] * 3)
    visualizer = drawing.build_visualizer(cfg_of('mmdet'), meta)
    grey = np.full((60, 60, 3), 128, np.uint8)
    overlay = drawing.draw_sample(visualizer, grey, make_instances(), True, threshold)
    factor = len(overlay) / 60
    centres = [(10, 20), (40, 20), (10, 50)]  # of the lower borders: x, y
    found = 0
    for x, y in centres:
        row, column = int(y * factor), int(x * factor)
        around = overlay[row - 8 : row + 8, column - 8 : column + 8].astype(int)
        found += (around[..., 0] - around[..., 1]).max() > 50
    assert found == drawn
