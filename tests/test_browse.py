"""tools/browse.py: right colours, annotations where they belong, the same pictures every time."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import mmdense
from mmdense.data.digit_scenes import Sizes, generate

ROOT = Path(mmdense.__file__).parent
SIZES = {'train': Sizes(scenes=3, crops=6), 'val': Sizes(scenes=2, crops=2)}
CONFIGS = {
    'mmpretrain': str(ROOT / 'configs/digits/paca_digits.py'),
    'mmdet': str(ROOT / 'configs/digits/mask_rcnn_paca_digits.py'),
    'mmseg': str(ROOT / 'configs/digits/upernet_paca_digits.py'),
}
RED = (200, 30, 10)  # RGB


@pytest.fixture(scope='module')
def digits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('digits')
    generate(folder / 'data' / 'digit_scenes', SIZES, seed=0)
    return folder


@pytest.fixture
def place(digits, tmp_path, monkeypatch) -> Path:
    """A folder of its own with digit scenes where the configs look for them; tools run inside."""
    shutil.copytree(digits / 'data', tmp_path / 'data')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(folder: str | Path) -> dict[str, np.ndarray]:
    """The pictures of a folder by name, as RGB."""
    files = sorted(Path(folder).iterdir())
    return {path.name: cv2.imread(str(path))[..., ::-1] for path in files}


@pytest.mark.parametrize('scope', CONFIGS)
def test_every_task(scope, place, run_tool):
    """All samples, in the default folder, large enough to read; another seed changes them."""
    code, out, err = run_tool('browse.py', CONFIGS[scope])
    assert code == 0, err
    folder = place / 'work_dirs' / Path(CONFIGS[scope]).stem / 'browse'
    pictures = read(folder)
    total = 6 if scope == 'mmpretrain' else 3
    assert f'{total} of {total} samples' in out and len(pictures) == total
    assert next(iter(pictures)).startswith('0_')
    assert all(min(picture.shape[:2]) > 400 for picture in pictures.values())
    assert run_tool('browse.py', CONFIGS[scope], '--out', 'again')[0] == 0
    assert run_tool('browse.py', CONFIGS[scope], '--out', 'other', '--seed', 1)[0] == 0
    again, other = read('again'), read('other')
    assert all(np.array_equal(pictures[name], again[name]) for name in pictures)
    assert not all(np.array_equal(pictures[name], other[name]) for name in pictures)


@pytest.mark.parametrize('scope', CONFIGS)
def test_colours(scope, place, run_tool):
    """What is red in the file is red in the picture, and the label map's colour lies on top."""
    for path in (place / 'data').rglob('*.png'):
        if 'semantic' not in path.parts:
            image = np.full_like(cv2.imread(str(path)), RED[::-1])
            cv2.imwrite(str(path), image)
    args = ['--split', 'val', '--number', 1, '--out', 'pictures']
    assert run_tool('browse.py', CONFIGS[scope], *args)[0] == 0
    (picture,) = read('pictures').values()
    want = [value // 2 for value in RED] if scope == 'mmseg' else RED  # half black, half picture
    corner = picture[-5:, -5:].reshape(-1, 3)
    np.testing.assert_allclose(np.median(corner, axis=0), want, atol=2)


def test_label_maps_lie_on_their_pixels(place, run_tool):
    """A map whose left half is class 1 gives a picture whose left half has class 1's colour."""
    for path in (place / 'data/digit_scenes/semantic/val').iterdir():
        labels = np.zeros((128, 128), np.uint8)
        labels[:, :64] = 1
        labels[:32] = 255  # ignored
        cv2.imwrite(str(path), labels)
    args = ['--split', 'val', '--number', 1, '--out', 'pictures']
    assert run_tool('browse.py', CONFIGS['mmseg'], *args)[0] == 0
    (picture,) = read('pictures').values()
    assert picture.shape == (512, 512, 3)
    red_excess = picture[..., 0].astype(int) - picture[..., 1]  # class 1 is (230, 25, 75)
    left, right = red_excess[200:, :250].mean(), red_excess[200:, 262:].mean()
    ignored = red_excess[:120, :250].mean()
    assert left - right > 80 and left - ignored > 80


def test_boxes_and_masks_lie_on_the_digits(place, run_tool):
    """Grey where the picture is grey, but inside the boxes; the mask covers its digit."""
    path = place / 'data/digit_scenes/annotations/instances_val.json'
    content = json.loads(path.read_text())
    image = dict(content['images'][0], height=96)
    file = place / 'data/digit_scenes/images/val' / image['file_name']
    cv2.imwrite(str(file), np.full((96, 128, 3), 100, np.uint8))
    square = [32, 40, 96, 40, 96, 88, 32, 88]
    box = dict(bbox=[32, 40, 64, 48], area=3072, iscrowd=0, category_id=1, id=1)
    content['images'] = [image]
    content['annotations'] = [dict(box, image_id=image['id'], segmentation=[square])]
    path.write_text(json.dumps(content))
    for poly2mask in ('True', 'False'):  # bitmaps and polygons
        option = f'val_dataloader.dataset.pipeline.2.poly2mask={poly2mask}'
        args = ['--split', 'val', '--out', poly2mask, '--cfg-options', option]
        code, _, err = run_tool('browse.py', CONFIGS['mmdet'], *args)
        assert code == 0, err
        (picture,) = read(poly2mask).values()
        assert picture.shape == (384, 512, 3)
        is_coloured = np.ptp(picture, axis=2) > 10
        assert is_coloured[200:340, 140:370].mean() > 0.95  # 4 x the box, less label and line
        is_coloured[154:358, 122:390] = False
        assert not is_coloured.any()


MOSAIC = """
_base_ = '{base}'
inner = dict(**_base_.train_dataloader.dataset)
inner['pipeline'] = _base_.train_pipeline[:2]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='MultiImageMixDataset',
        dataset=dict(type='RepeatDataset', times=2, dataset=inner),
        pipeline={pipeline},
    )
)
"""
PIPELINES = {
    'mmdet': "[dict(type='Mosaic', img_scale=(128, 128)), dict(type='PackDetInputs')]",
    'mmseg': "[dict(type='RandomMosaic', prob=1.0, img_scale=(128, 128)), "
    "dict(type='PackSegInputs')]",
}


@pytest.mark.parametrize('scope', PIPELINES)
def test_wrappers_that_mix_images(scope, place, run_tool):
    config = place / 'mosaic.py'
    config.write_text(MOSAIC.format(base=CONFIGS[scope], pipeline=PIPELINES[scope]))
    options = ['--cfg-options', 'train_dataloader.dataset.dataset.dataset.pipeline.1.with_mask=0']
    options = options if scope == 'mmdet' else []
    code, out, err = run_tool('browse.py', config, '--out', 'pictures', '--number', 4, *options)
    assert code == 0, err
    assert '4 of 6 samples' in out and len(read('pictures')) == 4


def test_images_without_annotations(place, run_tool):
    crop = '[dict(type="LoadImageFromFile"),dict(type="LoadAnnotations",with_bbox=True,'
    crop += 'with_mask=True),dict(type="RandomCrop",crop_size=(8,8),allow_negative_crop=True),'
    crop += 'dict(type="PackDetInputs")]'
    config = place / 'crops.py'
    config.write_text(
        f'_base_ = {CONFIGS["mmdet"]!r}\ntrain_dataloader = dict(dataset=dict(pipeline={crop}))\n'
    )
    code, _, err = run_tool('browse.py', config, '--out', 'pictures')
    assert code == 0, err
    assert all(picture.shape == (512, 512, 3) for picture in read('pictures').values())


def test_images_that_a_data_set_holds_in_memory_are_rgb(place, run_tool, monkeypatch):
    """As CIFAR's are: its pipelines read no file."""
    (place / 'reds.py').write_text(
        'import numpy as np\n'
        'from mmengine.dataset import BaseDataset\n'
        'from mmpretrain.registry import DATASETS\n'
        '@DATASETS.register_module(force=True)\n'
        'class Reds(BaseDataset):\n'
        '    def load_data_list(self):\n'
        f'        return [dict(img=np.full((32, 32, 3), {RED}, np.uint8), gt_label=0)]\n'
    )
    (place / 'memory.py').write_text(
        f'_base_ = {CONFIGS["mmpretrain"]!r}\n'
        "custom_imports = dict(imports=['reds'])\n"
        'train_dataloader = dict(dataset=dict(_delete_=True, type="Reds", '
        'pipeline=[dict(type="PackInputs")]))\n'
    )
    monkeypatch.syspath_prepend(place)
    code, _, err = run_tool('browse.py', 'memory.py', '--out', 'pictures')
    assert code == 0, err
    pictures = read('pictures')
    assert list(pictures) == ['0.png']
    np.testing.assert_array_equal(pictures['0.png'][-1, -1], RED)


class TestBadInput:
    """One line, exit code 1, and nothing written."""

    @pytest.fixture
    def fails(self, place, run_tool):
        def check(*args: object, folder: Path = place / 'out') -> str:
            code, out, err = run_tool('browse.py', *args)
            assert code == 1 and err.count('\n') == 1 and err.startswith('error: '), err
            assert 'samples' not in out and not folder.exists()
            return err

        return check

    def test_config(self, fails):
        assert "'nothing.py' does not exist" in fails('nothing.py', '--out', 'out')
        part = ROOT / 'configs/_base_/ema.py'
        assert 'is no config of a classifier' in fails(part, '--out', 'out')

    def test_data_set(self, fails, place):
        shutil.rmtree(place / 'data')
        err = fails(CONFIGS['mmdet'], '--out', 'out')
        assert "folder 'data/digit_scenes/' does not exist" in err

    def test_split(self, fails):
        option = ['--cfg-options', 'test_dataloader=None']
        err = fails(CONFIGS['mmdet'], '--split', 'test', '--out', 'out', *option)
        assert 'the config has no test_dataloader' in err

    def test_out_is_a_file(self, fails, place):
        (place / 'file').write_text('mine')
        err = fails(CONFIGS['mmpretrain'], '--out', 'file')
        assert 'cannot be written' in err and (place / 'file').read_text() == 'mine'

    def test_unreadable_image(self, fails, place):
        for path in (place / 'data/digit_scenes/images/train').iterdir():
            path.write_bytes(path.read_bytes()[:200])
        err = fails(CONFIGS['mmdet'], '--number', 1, '--out', 'out')
        assert 'images/train/' in err and 'cannot be read' in err

    def test_no_class_matches(self, fails):
        option = ['--cfg-options', "train_dataloader.dataset.metainfo.classes=('cat','dog')"]
        err = fails(CONFIGS['mmdet'], '--out', 'out', *option)
        assert 'no image' in err

    def test_several_views(self, fails, place):
        config = place / 'views.py'
        config.write_text(
            f'_base_ = {CONFIGS["mmpretrain"]!r}\n'
            "views = dict(type='MultiView', num_views=2, transforms=[[]])\n"
            'pipeline = [dict(type="LoadImageFromFile"), views, dict(type="PackInputs")]\n'
            'train_dataloader = dict(dataset=dict(pipeline=pipeline))\n'
        )
        assert 'only images of one or three channels' in fails(config, '--out', 'out')

    def test_number(self, run_tool):
        code, _, err = run_tool('browse.py', CONFIGS['mmdet'], '--number', 0)
        assert code == 2 and 'at least 1' in err
