"""tools/browse.py: right colours, annotations where they belong, the same pictures every time."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import CONFIGS, DIGIT_CONFIGS, check_fails

RED = (200, 30, 10)  # RGB
SAMPLES = {'mmpretrain': 20, 'mmdet': 8, 'mmseg': 8}


def read(folder: str | Path) -> dict[str, np.ndarray]:
    """The pictures of a folder by name, as RGB."""
    files = sorted(Path(folder).iterdir())
    return {path.name: cv2.imread(str(path))[..., ::-1] for path in files}


@pytest.mark.parametrize('scope', DIGIT_CONFIGS)
def test_every_task(scope, place, run_tool):
    """All samples, in the default folder, large enough to read; another seed changes them."""
    code, out, err = run_tool('browse.py', DIGIT_CONFIGS[scope])
    assert code == 0, err
    folder = place / 'work_dirs' / DIGIT_CONFIGS[scope].stem / 'browse'
    pictures = read(folder)
    total = SAMPLES[scope]
    assert f'{total} of {total} samples' in out and len(pictures) == total
    assert next(iter(pictures)).startswith(('0_', '00_'))
    assert all(min(picture.shape[:2]) > 400 for picture in pictures.values())
    for seed, is_same in ((0, True), (1, False)):
        some = ['--out', f'seed_{seed}', '--seed', seed, '--number', 3]
        assert run_tool('browse.py', DIGIT_CONFIGS[scope], *some)[0] == 0
        again = read(f'seed_{seed}')
        assert len(again) == 3
        same = [np.array_equal(pictures[name], picture) for name, picture in again.items()]
        assert all(same) if is_same else not all(same)


@pytest.mark.parametrize('scope', DIGIT_CONFIGS)
def test_colours(scope, place, run_tool):
    """What is red in the file is red in the picture, and the label map's colour lies on top."""
    for path in (place / 'data').rglob('*.png'):
        if 'semantic' not in path.parts:
            image = np.full_like(cv2.imread(str(path)), RED[::-1])
            cv2.imwrite(str(path), image)
    args = ['--split', 'val', '--number', 1, '--out', 'pictures']
    assert run_tool('browse.py', DIGIT_CONFIGS[scope], *args)[0] == 0
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
    assert run_tool('browse.py', DIGIT_CONFIGS['mmseg'], *args)[0] == 0
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
        code, _, err = run_tool('browse.py', DIGIT_CONFIGS['mmdet'], *args)
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
    config.write_text(MOSAIC.format(base=DIGIT_CONFIGS[scope], pipeline=PIPELINES[scope]))
    options = ['--cfg-options', 'train_dataloader.dataset.dataset.dataset.pipeline.1.with_mask=0']
    options = options if scope == 'mmdet' else []
    code, out, err = run_tool('browse.py', config, '--out', 'pictures', '--number', 4, *options)
    assert code == 0, err
    assert '4 of 16 samples' in out and len(read('pictures')) == 4


def test_images_without_annotations(place, run_tool):
    crop = '[dict(type="LoadImageFromFile"),dict(type="LoadAnnotations",with_bbox=True,'
    crop += 'with_mask=True),dict(type="RandomCrop",crop_size=(8,8),allow_negative_crop=True),'
    crop += 'dict(type="PackDetInputs")]'
    config = place / 'crops.py'
    config.write_text(
        f'_base_ = {str(DIGIT_CONFIGS["mmdet"])!r}\n'
        f'train_dataloader = dict(dataset=dict(pipeline={crop}))\n'
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
        f'_base_ = {str(DIGIT_CONFIGS["mmpretrain"])!r}\n'
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
        def check(*args: object, message: str) -> None:
            result = run_tool('browse.py', *args)
            check_fails(result, message)
            assert 'samples' not in result[1] and not (place / 'out').exists()

        return check

    @pytest.mark.parametrize(
        'config, args, message',
        [
            ('nothing.py', [], "'nothing.py' does not exist"),
            (CONFIGS / '_base_/ema.py', [], 'is no config of a classifier'),
            (
                DIGIT_CONFIGS['mmdet'],
                ['--split', 'test', '--cfg-options', 'test_dataloader=None'],
                'the config has no test_dataloader',
            ),
            (
                DIGIT_CONFIGS['mmdet'],
                ['--cfg-options', "train_dataloader.dataset.metainfo.classes=('cat','dog')"],
                'no image',
            ),
        ],
        ids=['no_config', 'no_model', 'no_split', 'no_class'],
    )
    def test_config(self, config, args, message, fails):
        fails(config, '--out', 'out', *args, message=message)

    def test_data_set(self, fails, place):
        shutil.rmtree(place / 'data')
        message = "folder 'data/digit_scenes/' does not exist"
        fails(DIGIT_CONFIGS['mmdet'], '--out', 'out', message=message)

    def test_out_is_a_file(self, fails, place):
        (place / 'file').write_text('mine')
        fails(DIGIT_CONFIGS['mmpretrain'], '--out', 'file', message='cannot be written')
        assert (place / 'file').read_text() == 'mine'

    def test_unreadable_image(self, fails, place):
        for path in (place / 'data/digit_scenes/images/train').iterdir():
            path.write_bytes(path.read_bytes()[:200])
        args = (DIGIT_CONFIGS['mmdet'], '--number', 1, '--out', 'out')
        fails(*args, message='images/train/')
        fails(*args, message='cannot be read')

    def test_several_views(self, fails, place):
        config = place / 'views.py'
        config.write_text(
            f'_base_ = {str(DIGIT_CONFIGS["mmpretrain"])!r}\n'
            "views = dict(type='MultiView', num_views=2, transforms=[[]])\n"
            'pipeline = [dict(type="LoadImageFromFile"), views, dict(type="PackInputs")]\n'
            'train_dataloader = dict(dataset=dict(pipeline=pipeline))\n'
        )
        fails(config, '--out', 'out', message='only images of one or three channels')

    def test_number(self, run_tool):
        code, _, err = run_tool('browse.py', DIGIT_CONFIGS['mmdet'], '--number', 0)
        assert code == 2 and 'at least 1' in err
