"""Pictures in tiles: what comes out is what a model that sees the whole picture finds."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from helpers import DIGIT_CONFIGS, check_fails
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, DefaultScope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from pycocotools import mask as coco_mask
from torch import nn

from mmdense.inference import tiles
from mmdense.inference.drawing import build_visualizer
from mmdense.inference.tiles import (
    CUT,
    SMALL,
    WHOLE,
    Predictor,
    TiledModel,
    cut,
    cut_side,
    merge,
    shrink,
)

FEW = ['--cfg-options', 'test_dataloader.num_workers=0', 'test_dataloader.dataset.indices=3']
SIZES = [(100, 100, 0.25), (101, 100, 0.25), (1000, 128, 0.25), (997, 64, 0.5), (30, 64, 0.25)]


@pytest.mark.parametrize('length, side, overlap', SIZES)
def test_spans_cover_a_side_and_overlap(length, side, overlap):
    spans, owned = zip(*cut_side(length, side, overlap))
    assert spans[0].start == 0 and spans[-1].stop == length
    assert {span.stop - span.start for span in spans} == {min(side, length)}
    assert all(a.stop - b.start >= overlap * side for a, b in zip(spans, spans[1:]))
    assert [i for own in owned for i in range(own.start, own.stop)] == list(range(length))
    for span, own in zip(spans, owned):
        assert span.start <= own.start < own.stop <= span.stop
    fewer = (length - 1) / max(len(spans) - 2, 1)  # one tile less would not do
    assert len(spans) == 1 or fewer > (1 - overlap) * side - 2


def test_tiles_own_every_pixel_once():
    owned = np.zeros((300, 470), int)
    for tile in cut(300, 470, 128):
        owned[tile.own_rows, tile.own_columns] += 1
    assert (owned == 1).all()


class PixelModel:
    """A segmentor whose label of a pixel is its blue value; what it saw is counted."""

    def __init__(self) -> None:
        self.decode_head = SimpleNamespace(num_classes=256)
        self.seen = []

    def test_step(self, batch: dict) -> list[SegDataSample]:
        (image,) = batch['inputs']
        self.seen.append(tuple(image.shape[1:]))
        return [SegDataSample(pred_sem_seg=PixelData(data=image[:1].long()))]


class BlobModel:
    """A detector of white regions: boxes, masks, and scores that grow with the region."""

    def test_step(self, batch: dict) -> list[DetDataSample]:
        (image,) = batch['inputs']
        white = (image[0].numpy() > 127).astype(np.uint8)
        number, regions, stats, _ = cv2.connectedComponentsWithStats(white)
        boxes = [[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:].tolist()]
        found = InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        found.scores = torch.tensor(1 - 1 / (1 + stats[1:, 4])).float()
        found.labels = torch.zeros(number - 1, dtype=torch.long)
        masks = np.array([regions == i for i in range(1, number)]).reshape(-1, *white.shape)
        found.masks = torch.from_numpy(masks)
        return [DetDataSample(pred_instances=found)]


def make(model: object, scope: str, side: int, score_thr: float = 0.0) -> Predictor:
    pack = 'mmseg.PackSegInputs' if scope == 'mmseg' else 'mmdet.PackDetInputs'
    steps = [dict(type=f'{scope}.LoadImageFromFile'), dict(type=pack, meta_keys=())]
    if scope == 'mmdet':
        steps[0]['type'] = 'LoadImageFromFile'
    return Predictor(model, Compose([TRANSFORMS.build(s) for s in steps]), side, score_thr)


@pytest.fixture
def noise(tmp_path) -> tuple[str, np.ndarray]:
    picture = np.random.default_rng(0).integers(0, 256, (300, 470, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'noise.png'), picture)
    return str(tmp_path / 'noise.png'), picture


def test_segmentor_has_no_seams(noise):
    path, picture = noise
    model = PixelModel()
    labels = make(model, 'mmseg', 128)(path).pred_sem_seg.data
    assert labels.dtype == torch.uint8
    np.testing.assert_array_equal(labels[0], picture[..., 0])
    assert set(model.seen) == {(128, 128)}


def test_picture_that_fits_is_seen_whole(noise):
    path, picture = noise
    model = PixelModel()
    sample = make(model, 'mmseg', 470)(path)
    assert model.seen == [(300, 470)]
    np.testing.assert_array_equal(sample.pred_sem_seg.data[0], picture[..., 0])


@pytest.fixture
def blobs(tmp_path) -> tuple[str, np.ndarray]:
    """Discs on a grid, moved at random, each smaller than the overlap of tiles; a large bar."""
    random = np.random.default_rng(1)
    picture = np.zeros((400, 600, 3), np.uint8)
    for x in range(30, 600, 60):
        for y in range(30, 300, 60):
            centre = (x + int(random.integers(-12, 13)), y + int(random.integers(-12, 13)))
            cv2.circle(picture, centre, int(random.integers(4, 14)), (255, 255, 255), -1)
    cv2.rectangle(picture, (40, 340), (559, 379), (255, 255, 255), -1)
    cv2.imwrite(str(tmp_path / 'blobs.png'), picture)
    return str(tmp_path / 'blobs.png'), picture


def test_detector_finds_each_object_once(blobs):
    path, picture = blobs
    whole = make(BlobModel(), 'mmdet', 600)(path).pred_instances
    found = make(BlobModel(), 'mmdet', 128)(path).pred_instances
    assert len(whole) == 51
    overlaps = np.array([[iou(a, b) for b in whole.bboxes] for a in found.bboxes])
    small = overlaps[:, (whole.bboxes[:, 2] - whole.bboxes[:, 0]) < 40]
    assert (small.max(axis=0) == 1).all()  # each disc, to the pixel
    bar = overlaps[:, (whole.bboxes[:, 2] - whole.bboxes[:, 0]) > 40]
    assert (bar > 0.8).sum() == 1  # the bar, to a pixel of the small picture on each side
    assert len(found) == 51  # and no part of it
    assert (found.scores.diff() <= 0).all()
    for box, mask in zip(found.bboxes.int().tolist(), found.masks):
        shown = coco_mask.decode(mask)
        assert shown.shape == picture.shape[:2]
        rows, columns = np.nonzero(shown)
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(np.subtract(edges, box)).max() <= (5 if box[2] - box[0] > 40 else 0)


def test_instances_below_the_threshold_are_left_out(blobs):
    scores = make(BlobModel(), 'mmdet', 128, score_thr=0.995)(blobs[0]).pred_instances.scores
    assert 0 < len(scores) < 51 and (scores >= 0.995).all()


def test_nothing_is_found_in_nothing(tmp_path):
    cv2.imwrite(str(tmp_path / 'black.png'), np.zeros((200, 300, 3), np.uint8))
    found = make(BlobModel(), 'mmdet', 128)(str(tmp_path / 'black.png')).pred_instances
    assert len(found) == 0 and found.bboxes.shape == (0, 4) and found.masks == []


def iou(a: torch.Tensor, b: torch.Tensor) -> float:
    left, top = torch.maximum(a[:2], b[:2])
    right, bottom = torch.minimum(a[2:], b[2:])
    common = float((right - left).clamp(min=0) * (bottom - top).clamp(min=0))
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b)]
    return common / (sum(areas) - common)


MERGED = {  # box, score, label, rank of each, and which are kept, best first
    'same object': ([([0, 0, 10, 10], 0.5, 0, WHOLE), ([0, 0, 10, 9], 0.9, 0, WHOLE)], [1]),
    'other class': ([([0, 0, 10, 10], 0.5, 0, WHOLE), ([0, 0, 10, 9], 0.9, 1, WHOLE)], [1, 0]),
    'whole before cut': ([([0, 0, 10, 10], 0.5, 0, WHOLE), ([0, 0, 10, 9], 0.9, 0, CUT)], [0]),
    'tile before small': ([([0, 0, 10, 10], 0.5, 0, WHOLE), ([0, 0, 10, 9], 0.9, 0, SMALL)], [0]),
    'part of a large one': ([([0, 0, 99, 99], 0.5, 0, SMALL), ([0, 0, 20, 20], 0.9, 0, CUT)], [0]),
    'one within another': (
        [([0, 0, 99, 99], 0.5, 0, WHOLE), ([0, 0, 9, 9], 0.9, 0, WHOLE)],
        [1, 0],
    ),
    'side by side': ([([0, 0, 10, 10], 0.5, 0, CUT), ([9, 0, 20, 10], 0.9, 0, CUT)], [1, 0]),
}


@pytest.mark.parametrize('given, wanted', MERGED.values(), ids=MERGED)
def test_merging(given, wanted):
    boxes, scores, labels, ranks = zip(*given)
    found = InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float32))
    found.scores, found.labels = torch.tensor(scores), torch.tensor(labels)
    found.ranks = torch.tensor(ranks)
    kept = merge(found)
    assert kept.bboxes.int().tolist() == [boxes[i] for i in wanted] and 'ranks' not in kept


def test_the_best_score_of_what_is_the_same_stays():
    """Of a part within it, which may be another object, the whole does not take the score."""
    found = InstanceData(bboxes=torch.tensor([[0.0, 0, 50, 50], [0, 0, 50, 48], [0, 0, 20, 20]]))
    found.scores, found.labels = torch.tensor([0.1, 0.8, 0.9]), torch.zeros(3, dtype=torch.long)
    found.ranks = torch.tensor([WHOLE, SMALL, CUT])
    kept = merge(found)
    assert kept.bboxes.tolist() == [[0, 0, 50, 50]] and kept.scores.tolist() == [pytest.approx(0.8)]


@pytest.mark.parametrize('width', [27, 28, 29, 30, 31, 32, 33, 36])
def test_an_object_as_wide_as_the_overlap(width, tmp_path):
    """Wherever it lies, also where it ends near the edges of both tiles that see all of it."""
    for left in range(88, 104):
        picture = np.zeros((128, 224, 3), np.uint8)  # two tiles, which share columns 96 to 128
        picture[50:60, left : left + width] = 255
        cv2.imwrite(str(tmp_path / 'bar.png'), picture)
        found = make(BlobModel(), 'mmdet', 128)(str(tmp_path / 'bar.png')).pred_instances
        assert len(found) == 1, left
        assert iou(found.bboxes[0], torch.tensor([left, 50.0, left + width, 60])) > 0.7


def test_a_strip_of_one_pixel(tmp_path):
    cv2.imwrite(str(tmp_path / 'strip.png'), np.full((1, 700, 3), 255, np.uint8))
    found = make(BlobModel(), 'mmdet', 128)(str(tmp_path / 'strip.png')).pred_instances
    assert found.bboxes.tolist() == [[0, 0, 700, 1]]


def test_shrinking(blobs):
    """A few instances at a time; together they are all."""
    path, picture = blobs
    found = make(BlobModel(), 'mmdet', 128)(path)
    parts = [part.pred_instances for part in shrink(found, 3)]
    assert [len(part) for part in parts] == [32, 19]
    whole = InstanceData.cat(parts)
    torch.testing.assert_close(whole.bboxes * 3, found.pred_instances.bboxes)
    assert torch.equal(whole.scores, found.pred_instances.scores)
    white = torch.from_numpy(picture[::3, ::3, 0] > 127)
    assert whole.masks.shape == (51, 134, 200)
    assert torch.equal(whole.masks.any(0)[:100], white[:100])  # above the bar


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_drawing(scope, blobs, monkeypatch):
    """On every n-th pixel, all that was found."""
    path, picture = blobs
    monkeypatch.setattr(tiles, 'OVERLAY', 512)
    model = BlobModel() if scope == 'mmdet' else PixelModel()
    sample = make(model, scope, 128)(path)
    cfg = Config(dict(default_scope=scope))
    visualizer = build_visualizer(cfg, dict(classes=tuple(map(str, range(256)))))
    black = np.zeros_like(picture)
    drawn = tiles.draw(visualizer, black, sample, 0.0)
    assert drawn.shape == picture.shape  # every second pixel, and each of these twice
    found = picture[..., 0] > 127 if scope == 'mmdet' else picture[..., 0] >= 0
    assert drawn.any(axis=2)[found].mean() > 0.9


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_tool(scope, untrained, pictures, run_tool, tmp_path):
    args = (DIGIT_CONFIGS[scope], untrained(scope), pictures, '--out-dir', tmp_path / 'out')
    code, out, err = run_tool('predict.py', *args, '--tile', 96, '--score-thr', 0.05)
    assert code == 0, err
    assert '6 of 6 pictures' in out
    for file in (tmp_path / 'out' / 'preds').rglob('*.json'):
        content = json.loads(file.read_text())
        if scope == 'mmdet':
            assert all(mask['size'] == [128, 128] for mask in content['masks'])
        else:
            assert sum(content['shares']) == pytest.approx(1, abs=1e-4)
            assert cv2.imread(str(file.with_suffix('.png')), -1).shape == (128, 128)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_testing(scope, place, untrained, run_tool):
    """Pictures that fit get the metrics of untiled ones; smaller tiles are said on the page."""
    found = {}
    for side in (None, 128, 96):
        command = [DIGIT_CONFIGS[scope], untrained(scope), '--work-dir', f'by_{side}', '--report']
        tile = [] if side is None else ['--tile', side]
        code, _, err = run_tool('test.py', *command, *tile, *FEW)
        assert code == 0, err[-3000:]
        metrics = json.loads(next(Path(f'by_{side}').glob('*/*.json')).read_text())
        found[side] = {k: v for k, v in metrics.items() if k not in ('time', 'data_time')}
        page = Path(f'by_{side}', 'report.html').read_text()
        assert ('in tiles of' in page) == (side is not None)
    assert found[None] == found[128] and found[96].keys() == found[128].keys()
    assert scope == 'mmdet' or found[96] != found[128]  # an untrained detector finds nothing


class Fixed(nn.Module):
    """In a wrapper: a segmentor that is right about pictures in which blue is the class."""

    def __init__(self) -> None:
        super().__init__()
        self.decode_head = nn.Module()
        self.decode_head.num_classes = 300
        self.test_step = PixelModel().test_step


def test_samples_get_what_tiles_find():
    """The batch's own samples, truth and all; labels of a type in which PyTorch can compare."""
    steps = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs', meta_keys=())]
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = TiledModel(Fixed(), steps, 128)
    picture = torch.randint(0, 256, (3, 200, 300), dtype=torch.uint8)
    truth = PixelData(data=picture[:1].long())
    (sample,) = model.test_step(
        dict(inputs=[picture], data_samples=[SegDataSample(gt_sem_seg=truth)])
    )
    assert torch.equal(sample.pred_sem_seg.data.long(), sample.gt_sem_seg.data)
    assert torch.equal(sample.gt_sem_seg.data, picture[:1].long())
    assert sample.pred_sem_seg.data.dtype == torch.int32


@pytest.mark.parametrize('flags', [['--tta'], ['--out', 'x.pkl'], ['--show-dir', 'x']])
def test_testing_refuses(flags, untrained, run_tool, tmp_path):
    args = (DIGIT_CONFIGS['mmdet'], untrained('mmdet'), '--work-dir', tmp_path / 'run')
    code, _, err = run_tool('test.py', *args, '--tile', 96, *flags)
    assert code == 2 and '--tile goes without --tta, --show, --show-dir and --out' in err
    assert not (tmp_path / 'run').exists()


def test_testing_refuses_classifiers(place, untrained, run_tool):
    args = (DIGIT_CONFIGS['mmpretrain'], untrained('mmpretrain'), '--tile', 96)
    check_fails(run_tool('test.py', *args), '--tile is for detectors and segmentors')


def test_tool_refuses(untrained, pictures, run_tool):
    args = (DIGIT_CONFIGS['mmpretrain'], untrained('mmpretrain'), pictures)
    check_fails(run_tool('predict.py', *args, '--tile', 96), '--tile is for detectors and segm')
    code, _, err = run_tool('predict.py', *args, '--tile', 10)
    assert code == 2 and '--tile: must be at least 64' in err
