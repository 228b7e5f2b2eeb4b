"""Pictures in, overlays and JSON out, for all three tasks."""

import json
import os
import struct
import zlib
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from helpers import CONFIGS, DIGIT_CONFIGS, check_fails
from mmengine.config import Config
from PIL import Image
from pycocotools import mask as coco_mask

from mmdense.engine import building
from mmdense.inference import predict


@pytest.mark.parametrize('scope', DIGIT_CONFIGS)
def test_folder_of_pictures(scope, untrained, pictures, run_tool, tmp_path):
    """One overlay and one JSON per picture, by its name below the folder."""
    checkpoint = untrained(scope)
    args = (DIGIT_CONFIGS[scope], checkpoint, pictures, '--out-dir', tmp_path / 'out')
    code, out, err = run_tool('predict.py', *args, '--score-thr', 0)
    assert code == 0, err
    assert "6 of 6 pictures: '" in out
    names = sorted(p.relative_to(pictures).with_suffix('') for p in pictures.rglob('*.png'))
    folder = tmp_path / 'out' / 'vis'
    drawn = sorted(p.relative_to(folder) for p in folder.rglob('*.png'))
    assert [p.with_suffix('') for p in drawn] == names
    overlay = cv2.imread(str(folder / drawn[0]))
    assert overlay.shape == (512, 512, 3)  # enlarged four times
    results = tmp_path / 'out' / 'preds'
    content = json.loads((results / f'{names[0]}.json').read_text())
    assert Path(content['image']) == pictures / f'{names[0]}.png'
    assert len(content['labels']) == len(content['classes']) > 0
    check = {'mmpretrain': check_scores, 'mmdet': check_instances, 'mmseg': check_map}[scope]
    check(content, results / f'{names[0]}.png', checkpoint)
    assert not list(tmp_path.rglob('*.part*'))


def check_scores(content: dict, label_map: Path, checkpoint: Path) -> None:
    """The scores are those of the model on the picture, normalized as the config says."""
    assert len(content['scores']) == 5 and content['scores'] == sorted(content['scores'])[::-1]
    cfg = Config.fromfile(DIGIT_CONFIGS['mmpretrain'])
    model = building.load_model(cfg, str(checkpoint))
    image = cv2.cvtColor(cv2.imread(content['image']), cv2.COLOR_BGR2RGB)
    mean, std = (np.float32(cfg.data_preprocessor[key]) for key in ('mean', 'std'))
    x = torch.from_numpy((image - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        scores = model.head.fc(model.backbone(x)[0].mean(dim=(2, 3))).softmax(dim=1)[0]
    assert scores[content['labels']].tolist() == pytest.approx(content['scores'], abs=1e-5)


def check_instances(content: dict, label_map: Path, checkpoint: Path) -> None:
    """Boxes lie in the picture and around their masks."""
    assert len(content['bboxes']) == len(content['masks']) == len(content['scores'])
    for box, mask in zip(content['bboxes'], content['masks']):
        assert 0 <= box[0] <= box[2] <= 128 and 0 <= box[1] <= box[3] <= 128
        left, _, width, _ = coco_mask.toBbox(mask)
        assert width == 0 or (left >= box[0] - 1 and left + width <= box[2] + 1)
        assert mask['size'] == [128, 128]


def check_map(content: dict, label_map: Path, checkpoint: Path) -> None:
    labels = cv2.imread(str(label_map), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (128, 128)
    found, counts = np.unique(labels, return_counts=True)
    assert found.tolist() == content['labels']
    assert (counts / labels.size).tolist() == pytest.approx(content['shares'], abs=1e-5)
    assert content['classes'][0] in ('background', *'0123456789')


def huge_png(width: int, height: int) -> bytes:
    """The start of a PNG file that declares so many pixels."""
    header = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack('>I', 13) + header + struct.pack('>I', zlib.crc32(header))
    data = b'IDAT' + zlib.compress(bytes(100))
    chunk += struct.pack('>I', len(data) - 4) + data + struct.pack('>I', zlib.crc32(data))
    return b'\x89PNG\r\n\x1a\n' + chunk


def fail_at_strips(run):
    def fail(model, batch):
        if batch['data_samples'][0].ori_shape[0] == 1:
            raise RuntimeError('the strip\nsecond line')
        return run(model, batch)

    return fail


class TestBadInput:
    """Of tools/predict.py and tools/visualize.py: one line, and nothing written."""

    @pytest.mark.parametrize('tool', ['predict.py', 'visualize.py'])
    @pytest.mark.parametrize(
        'config, checkpoint, image, more, message',
        [
            ('mmdet', 'mmdet', 'nothing.jpg', [], "image 'nothing.jpg' does not exist"),
            ('mmseg', 'mmseg', 'broken.png', [], 'cannot be read as an image'),
            ('mmdet', 'nothing.pth', 'val/000000.png', [], 'does not exist'),
            ('mmdet', 'mmseg', 'val/000000.png', [], 'is of another model'),
            (
                CONFIGS / '_base_' / 'ema.py',
                'mmdet',
                'val/000000.png',
                [],
                'is no config of a classifier, detector or segmentor',
            ),
            (
                'mmdet',
                'mmdet',
                'val/000000.png',
                ['--device', 'cuda:77'],
                "'cuda:77' is no device of this machine",
            ),
        ],
        ids=['no_image', 'broken', 'no_checkpoint', 'other_model', 'no_model', 'no_device'],
    )
    def test_both(
        self,
        tool,
        config,
        checkpoint,
        image,
        more,
        message,
        untrained,
        pictures,
        run_tool,
        tmp_path,
        monkeypatch,
    ):
        monkeypatch.chdir(pictures)
        Path('broken.png').write_text('no image')
        config = DIGIT_CONFIGS.get(config, config)
        checkpoint = untrained(checkpoint) if checkpoint in DIGIT_CONFIGS else checkpoint
        args = (config, checkpoint, image, '--out-dir', tmp_path / 'out', *more)
        check_fails(run_tool(tool, *args), message)
        assert not (tmp_path / 'out').exists()

    def test_empty_folder(self, run_tool, untrained, tmp_path):
        (tmp_path / 'empty').mkdir()
        args = (DIGIT_CONFIGS['mmdet'], untrained('mmdet'), tmp_path / 'empty')
        check_fails(run_tool('predict.py', *args), 'holds no image')

    def test_unreadable_image_among_others(self, run_tool, untrained, pictures, tmp_path):
        """The others are done; the exit code tells."""
        (tmp_path / 'broken.png').write_text('no image')
        images = (tmp_path / 'broken.png', pictures / 'val' / '000000.png')
        args = (DIGIT_CONFIGS['mmseg'], untrained('mmseg'), *images)
        check_fails(run_tool('predict.py', *args, '--out-dir', tmp_path / 'o'), 'broken.png')
        assert [p.name for p in (tmp_path / 'o' / 'vis').iterdir()] == ['000000.png']

    def test_bad_pictures_of_every_kind(self, run_tool, untrained, pictures, tmp_path):
        """Each is listed in a line; the others are done, and nothing of a failed one is written."""
        folder = tmp_path / 'mixed'
        folder.mkdir()
        picture = cv2.imread(str(pictures / 'val' / '000000.png'))
        good = dict(
            plain=picture,
            grey=picture[..., 0],
            alpha=np.dstack([picture, picture[..., :1]]),
            deep=picture.astype(np.uint16) * 257,
        )
        for name, content in good.items():
            cv2.imwrite(str(folder / f'{name}.png'), content)
        Image.open(folder / 'plain.png').convert('CMYK').save(folder / 'cmyk.jpg')
        Image.open(folder / 'plain.png').convert('P').save(folder / 'palette.png')
        bad = dict(
            text=b'no image',
            empty=b'',
            cut=(folder / 'plain.png').read_bytes()[:60],
            huge=huge_png(60_000, 60_000),
        )
        for name, content in bad.items():
            (folder / f'{name}.png').write_bytes(content)
        os.mkfifo(folder / 'pipe.png')
        args = (DIGIT_CONFIGS['mmseg'], untrained('mmseg'), folder, '--out-dir', tmp_path / 'out')
        code, out, err = run_tool('predict.py', *args)
        lines = [line for line in err.splitlines() if line.startswith('error: ')]
        assert code == 1 and 'Traceback' not in err, err
        assert '6 of 11 pictures' in out and len(lines) == 5, (out, err)
        for name in (*bad, 'pipe'):
            assert sum(f'{name}.png' in line for line in lines) == 1, (name, lines)
        assert "huge.png' cannot be read as an image: more pixels than OPENCV_IO_MAX" in err
        done = {*good, 'cmyk', 'palette'}
        assert {path.stem for path in (tmp_path / 'out').rglob('*.*')} == done
        assert not list(tmp_path.rglob('*.part*'))

    def test_a_picture_that_a_layer_cannot_take(self, run_tool, untrained, pictures, tmp_path):
        cv2.imwrite(str(pictures / 'strip.png'), np.zeros((1, 5000, 3), np.uint8))
        args = (DIGIT_CONFIGS['mmpretrain'], untrained('mmpretrain'), pictures)
        with mock.patch.object(predict, 'predict', fail_at_strips(predict.predict)):
            code, out, err = run_tool('predict.py', *args, '--out-dir', tmp_path / 'o')
        assert code == 1 and '6 of 7 pictures' in out and 'Traceback' not in err
        assert "strip.png' cannot be processed: the strip" in err and 'second line' not in err

    def test_score_in_percent(self, run_tool, untrained, pictures):
        args = (DIGIT_CONFIGS['mmdet'], untrained('mmdet'), pictures, '--score-thr', 30)
        code, _, err = run_tool('predict.py', *args)
        assert code == 2 and '--score-thr is between 0 and 1' in err
