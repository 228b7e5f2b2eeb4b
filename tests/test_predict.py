"""Pictures in, overlays and JSON out; and views of the model, for all three tasks."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from pycocotools import mask as coco_mask

import mmdense
from mmdense.data.digit_scenes import Sizes, generate
from mmdense.engine import building, data
from mmdense.inference import drawing, predict
from mmdense.serialization.checkpoint import get_classes

ROOT = Path(mmdense.__file__).parent
CONFIGS = {
    'classifier': 'paca_digits',
    'detector': 'mask_rcnn_paca_digits',
    'segmentor': 'upernet_paca_digits',
}


@pytest.fixture(scope='module')
def place(tmp_path_factory) -> Path:
    """A few digit scenes, and a checkpoint of each task with random weights."""
    folder = tmp_path_factory.mktemp('place')
    sizes = Sizes(scenes=3, crops=3)
    generate(folder / 'scenes', {'train': sizes, 'val': sizes}, seed=0)
    for task in CONFIGS:
        torch.manual_seed(0)
        model = building.build_model(Config.fromfile(config(task)))
        model.backbone.init_weights()
        torch.save(dict(state_dict=model.state_dict()), folder / f'{task}.pth')
    return folder


def config(task: str) -> str:
    return str(ROOT / 'configs' / 'digits' / f'{CONFIGS[task]}.py')


@pytest.mark.parametrize('task', CONFIGS)
def test_folder_of_pictures(task, place, run_tool, tmp_path):
    """One overlay and one JSON per picture, by its name below the folder."""
    scenes = place / 'scenes' / 'images'
    checkpoint = place / f'{task}.pth'
    args = (config(task), checkpoint, scenes, '--out-dir', tmp_path, '--score-thr', 0)
    code, out, err = run_tool('predict.py', *args)
    assert code == 0, err
    assert "6 of 6 pictures: '" in out
    names = sorted(p.relative_to(scenes).with_suffix('') for p in scenes.rglob('*.png'))
    pictures = sorted(p.relative_to(tmp_path / 'vis') for p in (tmp_path / 'vis').rglob('*.png'))
    assert [p.with_suffix('') for p in pictures] == names
    overlay = cv2.imread(str(tmp_path / 'vis' / pictures[0]))
    assert overlay.shape == (512, 512, 3)  # enlarged four times
    content = json.loads((tmp_path / 'preds' / f'{names[0]}.json').read_text())
    assert Path(content['image']) == scenes / f'{names[0]}.png'
    assert len(content['labels']) == len(content['classes']) > 0
    check = {'classifier': check_scores, 'detector': check_instances, 'segmentor': check_map}[task]
    check(content, tmp_path / 'preds' / f'{names[0]}.png', place)
    assert not list(tmp_path.rglob('*.part*'))


def check_scores(content: dict, label_map: Path, place: Path) -> None:
    """The scores are those of the model on the picture, normalized as the config says."""
    assert len(content['scores']) == 5 and content['scores'] == sorted(content['scores'])[::-1]
    cfg = Config.fromfile(config('classifier'))
    model = building.load_model(cfg, str(place / 'classifier.pth'))
    image = cv2.cvtColor(cv2.imread(content['image']), cv2.COLOR_BGR2RGB)
    mean, std = (np.float32(cfg.data_preprocessor[key]) for key in ('mean', 'std'))
    x = torch.from_numpy((image - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        scores = model.head.fc(model.backbone(x)[0].mean(dim=(2, 3))).softmax(dim=1)[0]
    assert scores[content['labels']].tolist() == pytest.approx(content['scores'], abs=1e-5)


def check_instances(content: dict, label_map: Path, place: Path) -> None:
    """Boxes lie in the picture and around their masks."""
    assert len(content['bboxes']) == len(content['masks']) == len(content['scores'])
    for box, mask in zip(content['bboxes'], content['masks']):
        assert 0 <= box[0] <= box[2] <= 128 and 0 <= box[1] <= box[3] <= 128
        left, _, width, _ = coco_mask.toBbox(mask)
        assert width == 0 or (left >= box[0] - 1 and left + width <= box[2] + 1)
        assert mask['size'] == [128, 128]


def check_map(content: dict, label_map: Path, place: Path) -> None:
    labels = cv2.imread(str(label_map), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (128, 128)
    found, counts = np.unique(labels, return_counts=True)
    assert found.tolist() == content['labels']
    assert (counts / labels.size).tolist() == pytest.approx(content['shares'], abs=1e-5)
    assert content['classes'][0] in ('background', *'0123456789')


def test_overlay_lies_on_its_objects():
    """A detector's masks and a segmentor's labels are drawn where they are, enlarged or not."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData, PixelData
    from mmseg.structures import SegDataSample

    square = torch.zeros(1, 100, 100, dtype=torch.bool)
    square[0, 20:60, 30:50] = True
    instances = InstanceData(
        bboxes=torch.tensor([[30.0, 20.0, 50.0, 60.0]]),
        labels=torch.tensor([1]),
        scores=torch.tensor([0.9]),
        masks=square,
    )
    samples = {
        'mmdet': DetDataSample(pred_instances=instances),
        'mmseg': SegDataSample(pred_sem_seg=PixelData(data=square.long())),
    }
    meta = dict(classes=('a', 'b'), palette=[[0, 0, 0], [255, 0, 0]])
    grey = np.full((100, 100, 3), 128, np.uint8)
    for scope, sample in samples.items():
        visualizer = drawing.build_visualizer(Config(dict(default_scope=scope)), meta)
        overlay = drawing.draw_sample(visualizer, grey, sample, predicted=True)
        inside, outside = overlay[275, 200].astype(int), overlay[450, 450].astype(int)
        assert overlay.shape == (500, 500, 3)
        assert inside[0] - inside[1] > 50  # red, in RGB
        assert abs(outside[0] - outside[1]) < 10
    assert sample.pred_sem_seg.data.shape == (1, 100, 100)  # it is not changed


@pytest.mark.parametrize(
    'task, kinds',
    [('classifier', 1), ('detector', 3), ('segmentor', 3)],
)
def test_views(task, kinds, place, run_tool, tmp_path):
    image = place / 'scenes' / 'images' / 'val' / '000000.png'
    args = [config(task), place / f'{task}.pth', image, '--out-dir', tmp_path, '--max-maps', 2]
    args += ['--query', 0.2, 0.9, *(['--kinds', 'clusters'] if kinds == 1 else [])]
    code, out, err = run_tool('visualize.py', *args)
    assert code == 0, err
    assert 'clusters: 3 pages' in out
    pages = sorted(path.name for path in tmp_path.iterdir())
    assert len({page.split('_')[0] for page in pages}) == kinds
    assert 'clusters_stage3_block1.png' in pages
    assert all(cv2.imread(str(tmp_path / page)).shape[1] % 260 == 0 for page in pages)


class TestBadInput:
    def check(self, result, message):
        code, _, err = result
        lines = [line for line in err.splitlines() if 'error: ' in line]
        assert code == 1 and len(lines) == 1 and message in lines[0]

    @pytest.fixture(params=['predict.py', 'visualize.py'])
    def run(self, request, run_tool, place, tmp_path):
        def run(*args):
            result = run_tool(request.param, *args, '--out-dir', tmp_path / 'out')
            assert not (tmp_path / 'out').exists()
            return result

        return run

    def test_no_image(self, run, place):
        args = (config('detector'), place / 'detector.pth', 'nothing.jpg')
        self.check(run(*args), "image 'nothing.jpg' does not exist")

    def test_unreadable_image(self, run, place, tmp_path):
        (tmp_path / 'broken.png').write_text('no image')
        args = (config('segmentor'), place / 'segmentor.pth', tmp_path / 'broken.png')
        self.check(run(*args), 'cannot be read as an image')

    def test_missing_checkpoint(self, run, place):
        image = place / 'scenes' / 'images' / 'val' / '000000.png'
        self.check(run(config('detector'), 'nothing.pth', image), 'does not exist')

    def test_checkpoint_of_another_model(self, run, place):
        image = place / 'scenes' / 'images' / 'val' / '000000.png'
        args = (config('detector'), place / 'segmentor.pth', image)
        self.check(run(*args), 'is of another model')

    def test_wrong_kind_of_config(self, run, place):
        image = place / 'scenes' / 'images' / 'val' / '000000.png'
        args = (ROOT / 'configs/_base_/ema.py', place / 'detector.pth', image)
        self.check(run(*args), 'is no config of a classifier, detector or segmentor')

    def test_no_such_device(self, run, place):
        image = place / 'scenes' / 'images' / 'val' / '000000.png'
        args = (config('detector'), place / 'detector.pth', image, '--device', 'cuda:77')
        self.check(run(*args), "'cuda:77' is no device of this machine")

    def test_empty_folder(self, run_tool, place, tmp_path):
        args = (config('detector'), place / 'detector.pth', tmp_path)
        self.check(run_tool('predict.py', *args), 'holds no image')

    def test_unreadable_image_among_others(self, run_tool, place, tmp_path):
        """The others are done; the exit code tells."""
        (tmp_path / 'broken.png').write_text('no image')
        images = (tmp_path / 'broken.png', place / 'scenes' / 'images' / 'val' / '000000.png')
        args = (config('segmentor'), place / 'segmentor.pth', *images, '--out-dir', tmp_path / 'o')
        self.check(run_tool('predict.py', *args), 'broken.png')
        assert [p.name for p in (tmp_path / 'o' / 'vis').iterdir()] == ['000000.png']

    def test_folder_to_look_at(self, run_tool, place):
        args = (config('detector'), place / 'detector.pth', place / 'scenes')
        self.check(run_tool('visualize.py', *args), 'is a folder; name one picture')

    def test_score_in_percent(self, run_tool, place):
        args = (config('detector'), place / 'detector.pth', place / 'scenes', '--score-thr', 30)
        code, _, err = run_tool('predict.py', *args)
        assert code == 2 and '--score-thr is between 0 and 1' in err

    def test_nothing_to_show(self, run_tool, place):
        image = place / 'scenes' / 'images' / 'val' / '000000.png'
        args = (config('detector'), place / 'detector.pth', image, '--kinds', 'similarity')
        self.check(run_tool('visualize.py', *args), 'PaCaViT has none of these to show')


@pytest.mark.parametrize(
    'name, first, number',
    [
        ('paca/paca_t_in1k', 'tench', 1000),
        ('fcvit/mask_rcnn_fcvit_b12_1x', 'person', 80),
        ('msf/upernet_msf_s_160k', 'wall', 150),
        ('digits/upernet_paca_digits', 'background', 11),
    ],
)
def test_classes_without_a_checkpoint_that_names_them(name, first, number):
    classes = data.find_dataset_meta(Config.fromfile(ROOT / f'configs/{name}.py'))['classes']
    assert classes[0].startswith(first) and len(classes) == number


def test_pictures_of_one_name(tmp_path):
    """Results of a/x.png, b/x.png and b/x.jpg do not overwrite each other."""
    for name in ('a/x.png', 'b/x.png', 'b/x.jpg', 'b/notes.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    inputs = [str(tmp_path / 'a' / 'x.png'), str(tmp_path / 'b')]
    found = predict.find_images(inputs, tmp_path / 'out')
    assert list(found) == ['x', 'x_2', 'x_3']
    assert len(set(found.values())) == 3
    assert list(predict.find_images([str(tmp_path)], tmp_path / 'b')) == ['a/x']


def test_classes_that_fit_the_model():
    """The checkpoint's names, or the data set's, if there are enough of them; or else numbers."""
    cfg = Config.fromfile(config('detector'))
    ten = tuple('abcdefghij')
    for meta in (dict(dataset_meta=dict(classes=ten)), dict(CLASSES=ten)):
        assert data.find_classes(cfg, get_classes(meta))['classes'] == ten
    for checkpoint in ({}, dict(meta=None), dict(meta=dict(dataset_meta=dict(classes='ab')))):
        assert data.find_classes(cfg, get_classes(checkpoint.get('meta') or {}))[
            'classes'
        ] == tuple('0123456789')
    cfg.test_dataloader.dataset.metainfo.classes = 'nothing.txt'
    assert data.find_classes(cfg, {})['classes'] == tuple('0123456789')
    cascade = dict(roi_head=dict(bbox_head=[dict(num_classes=7), dict(num_classes=7)]))
    assert data.find_num_classes(cascade) == 7


def test_features_of_mask2former(run_tool, place, tmp_path):
    """Heads that have nothing to show are not run: they may want more than maps."""
    arch = dict(embed_dims=[16] * 4, num_heads=[1] * 4, depths=[1] * 4, mlp_ratios=[1] * 4)
    config = tmp_path / 'm2f.py'
    config.write_text(
        "_base_ = 'mmdense::paca/mask2former_paca_s_160k.py'\n"
        f'model = dict(backbone=dict(arch=dict({arch}, _delete_=True), init_cfg=None),\n'
        '             decode_head=dict(in_channels=[16] * 4))\n'
    )
    model = building.build_model(Config.fromfile(config))
    torch.save(model.state_dict(), tmp_path / 'm2f.pth')
    image = place / 'scenes' / 'images' / 'val' / '000000.png'
    args = (config, tmp_path / 'm2f.pth', image, '--kinds', 'features')
    code, out, err = run_tool('visualize.py', *args, '--out-dir', tmp_path / 'out')
    assert code == 0, err
    assert 'features: 4 pages' in out
