"""What the page to explore models shows, without the page."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import DIGIT_CONFIGS, ROOT
from mmengine.config import Config
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from PIL import Image

from mmdense.engine.building import build_model, load_model
from mmdense.errors import UserError
from mmdense.families import FAMILIES
from mmdense.families.views import View
from mmdense.inference import explore
from mmdense.inference.explore import (
    Explored,
    check_pixels,
    compare,
    list_maps,
    list_pictures,
    paint,
)
from mmdense.inference.visualize import find_watches
from mmdense.study.steps import environment

PICTURE = np.full((40, 60, 3), 90, np.uint8)
MAPS = torch.zeros(2, 5, 8)
MAPS[0, 1, 2], MAPS[0, 3, 4], MAPS[1, 4, 7] = 1.0, 0.5, -1.0


def make_view(**kwargs: object) -> View:
    return View('stage1_block1', MAPS, ('head 1', 'head 2'), 8, **kwargs)


@pytest.fixture
def explored(untrained):
    def make(scope: str) -> Explored:
        cfg = Config.fromfile(DIGIT_CONFIGS[scope])
        return Explored(cfg, load_model(cfg, str(untrained(scope))), score_thr=0.0)

    return make


@pytest.mark.parametrize('scope', DIGIT_CONFIGS)
def test_a_model_runs_once_for_a_picture(scope, explored, pictures):
    model, (first, second) = explored(scope), sorted(pictures.rglob('val/*.png'))[:2]
    runs = []
    model.model.backbone.register_forward_hook(lambda *_: runs.append(1))
    seen = model.see(str(first))
    views = model.look(str(first), (0.0, 0.0))
    number = len(runs)
    other = model.look(str(first), (1.0, 1.0))
    assert len(runs) == number and model.see(str(first)) is seen
    corners = [v['attention']['stage 1, block 1'] for v in (views, other)]
    assert corners[0].query == (0, 0) and corners[1].query == tuple(
        n - 1 for n in seen.picture.shape[1::-1]
    )
    assert not corners[0].maps.equal(corners[1].maps)
    assert seen.seconds > 0 and seen.overlay.shape[2] == 3
    assert model.see(str(second)) is not seen and len(runs) > number


@pytest.mark.parametrize('family', FAMILIES, ids=lambda family: family.name)
def test_each_family_has_something_to_see_from_a_point(family, pictures):
    with environment({'BACKBONE': family.name}):
        cfg = Config.fromfile(ROOT / 'configs' / 'study' / 'classifier.py')
    torch.manual_seed(0)
    model = build_model(cfg)
    model.dataset_meta = dict(classes=list('0123456789'))
    explored, path = Explored(cfg, model), str(next(pictures.rglob('val/*.png')))
    corners = [explored.look(path, point) for point in ((0.0, 0.0), (1.0, 1.0))]
    watched = {watch.kind for watch, _ in find_watches(model)}
    assert watched and watched == set(corners[0]) <= {watch.kind for watch in family.watches}
    pairs = [
        (view, corners[1][kind][at]) for kind in watched for at, view in corners[0][kind].items()
    ]
    assert all(view.maps.isfinite().all() and view.maps.std() > 0 for view, _ in pairs)
    assert all(view.query != other.query for view, other in pairs if view.query)


def test_the_first_run_is_not_the_one_that_is_timed(explored, pictures, monkeypatch):
    model, path = explored('mmdet'), str(next(pictures.rglob('val/*.png')))
    clock, starts = iter(range(100)), []
    monkeypatch.setattr(explore.time, 'perf_counter', lambda: next(clock))
    model.model.backbone.register_forward_hook(lambda *_: starts.append(next(clock)))
    assert model.see(path).seconds == 2 and starts[:2] == [0, 2]


def test_what_is_no_picture(explored, tmp_path):
    (tmp_path / 'broken.png').write_bytes(b'\x89PNG\r\n')
    model = explored('mmpretrain')
    for name, message in (('broken.png', 'broken.png'), ('none.png', 'does not exist')):
        with pytest.raises(UserError, match=message):
            model.see(str(tmp_path / name))


def test_what_is_too_large(tmp_path):
    """A small file may hold gigabytes."""
    Image.new('1', (10_000, 5_000)).save(tmp_path / 'fits.png')
    check_pixels(str(tmp_path / 'fits.png'))
    for side in (5_001, 10_000, 20_000):
        Image.new('1', (10_000, side)).save(tmp_path / 'large.png')
        with pytest.raises(UserError, match='more than 50,000,000 pixels'):
            check_pixels(str(tmp_path / 'large.png'))


def test_names_of_maps():
    assert list_maps(make_view()) == ['mean', 'head 1', 'head 2']
    owners, colours = torch.zeros(5, 8, dtype=torch.long), torch.zeros(5, 8, 3)
    assert list_maps(make_view(owners=owners))[:2] == ['partition', 'mean']
    assert list_maps(make_view(colours=colours))[0] == 'principal components'
    with pytest.raises(ValueError, match='head 3'):
        paint(PICTURE, make_view(), 'head 3')


def test_a_map_is_where_its_positions_are():
    painted = paint(PICTURE, make_view(), 'head 1').astype(int)
    assert painted.shape == (40, 60, 3)
    brightest = np.argwhere(painted.sum(2) == painted.sum(2).max())
    assert brightest.min(0).tolist() == [8, 16] and brightest.max(0).tolist() == [15, 23]


def test_threshold_leaves_the_rest_grey():
    grey = (paint(PICTURE, make_view(), 'head 1', 0.4) == 90).all(2)
    assert not grey[8:16, 16:24].any() and not grey[24:32, 32:40].any() and grey.sum() == 2400 - 128
    assert (paint(PICTURE, make_view(), 'head 1', 0.6) == 90).all(2).sum() == 2400 - 64


def test_a_signed_map_is_blue_below_zero():
    painted = paint(PICTURE, make_view(signed=True), 'head 2', 0.5).astype(int)
    red, _, blue = painted[36, 59]
    assert blue > red + 50 and (painted[0, 0] == 90).all()


def test_the_point_is_marked():
    painted = paint(PICTURE, make_view(query=(30, 20)), 'head 1')
    assert painted[20, 30].tolist() == [255, 0, 0]


def make_seen(**fields: object) -> SimpleNamespace:
    return SimpleNamespace(original=PICTURE, sample=BaseDataElement(**fields))


def make_objects(*rows: tuple[float, ...]) -> InstanceData:
    boxes, labels, scores = zip(*((row[:4], row[4], row[5]) for row in rows))
    return InstanceData(
        bboxes=torch.tensor(boxes), labels=torch.tensor(labels), scores=torch.tensor(scores)
    )


def test_difference_of_labels():
    a, b = torch.zeros(1, 40, 60), torch.zeros(1, 40, 60)
    b[0, :10] = 1
    picture, words = compare(*(make_seen(pred_sem_seg=PixelData(data=labels)) for labels in (a, b)))
    assert words == '25.0% of the pixels have another label'
    assert (picture[:10] == (255, 0, 0)).all() and (picture[10:] == 90).all()


def test_difference_of_objects():
    same, elsewhere, unsure = (
        (2, 2, 12, 12, 1, 0.9),
        (30, 5, 50, 25, 1, 0.8),
        (2, 2, 12, 12, 3, 0.1),
    )
    moved, other = (3, 2, 13, 12, 1, 0.9), (30, 5, 50, 25, 2, 0.8)
    first, second = make_objects(same, elsewhere, unsure), make_objects(moved, other)
    picture, words = compare(make_seen(pred_instances=first), make_seen(pred_instances=second), 0.3)
    assert words == '1 objects of both, 1 of the first alone (red), 1 of the second alone (blue)'
    assert (picture[2:13, 2:14] == 90).all() and not (picture[5, 30:50] == 90).any()


def test_two_objects_share_no_partner():
    twice, once = make_objects(*[(2, 2, 12, 12, 1, 0.9)] * 2), make_objects((2, 2, 12, 12, 1, 0.9))
    _, words = compare(make_seen(pred_instances=twice), make_seen(pred_instances=once))
    assert words.startswith('1 objects of both, 1 of the first alone (red), 0 of')


def test_difference_of_classes():
    a, b = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.6, 0.1])
    _, words = compare(*(make_seen(pred_score=score) for score in (a, b)))
    assert words == 'other classes; probabilities differ by 0.400 at most'
    _, words = compare(make_seen(pred_score=a), make_seen(pred_score=a[:2]))
    assert 'nothing to compare' in words


def test_models_that_do_different_things():
    _, words = compare(
        make_seen(pred_score=torch.ones(3)),
        make_seen(pred_instances=make_objects((0, 0, 1, 1, 1, 1))),
    )
    assert 'nothing to compare' in words


def test_pictures_of_the_test_data(place, monkeypatch, tmp_path_factory):
    cfg = Config.fromfile(DIGIT_CONFIGS['mmdet'])
    monkeypatch.setattr(explore, 'MAX_PICTURES', 3)
    found = list_pictures(cfg)
    assert len(found) == 3 and all(name.endswith('.png') for name in found)
    monkeypatch.chdir(tmp_path_factory.mktemp('empty'))
    assert list_pictures(cfg) == []
