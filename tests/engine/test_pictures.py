"""Which files are read as pictures, and why one was not."""

import json
import os

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from mmdense.compat import MAX_PIXELS
from mmdense.engine.data import prepare_loading
from mmdense.engine.pictures import check_inside, check_regular, explain
from mmdense.errors import UserError


@pytest.mark.parametrize('size, is_large', [((10, 10), False), ((11, 10), True), ((1, 101), True)])
def test_more_pixels_than_are_allowed(size, is_large, tmp_path, monkeypatch):
    monkeypatch.setenv('OPENCV_IO_MAX_IMAGE_PIXELS', '100')
    Image.new('L', size).save(tmp_path / 'a.png')
    wanted = ': more pixels than OPENCV_IO_MAX_IMAGE_PIXELS=100 allows' if is_large else ''
    assert explain(str(tmp_path / 'a.png')) == wanted


def test_other_reasons_need_no_words(tmp_path, monkeypatch):
    """By default many pixels are allowed; a bomb in PIL's eyes is too large in ours."""
    monkeypatch.delenv('OPENCV_IO_MAX_IMAGE_PIXELS', raising=False)
    path = tmp_path / 'a.png'
    Image.new('L', (300, 300)).save(path)
    assert explain(str(path)) == explain(str(tmp_path / 'none.png')) == explain(None) == ''
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    assert explain(str(path)).endswith(f'={MAX_PIXELS} allows')


@pytest.mark.parametrize(
    'path, inside',
    [
        ('data/img/a.png', True),
        ('data/img/b/../a.png', True),
        ('/elsewhere/seg/a.png', True),  # a prefix of its own
        ('data/img/../../a.png', False),
        ('data/../../etc/passwd', False),
        ('/etc/passwd', False),
        ('data2/a.png', False),
        ('http://host/a.png', False),
        ('data/http://host/a.png', False),
        ('s3://bucket/data/a.png', True),
        ('s3://bucket/data/../a.png', False),
    ],
)
def test_pictures_lie_in_the_folder_of_their_data(path, inside):
    class Dataset:
        data_root = 'data'
        data_prefix = dict(img='data/img', seg='/elsewhere/seg', far='s3://bucket/data', no='')

    for key in ('img_path', 'seg_map_path'):
        if inside:
            check_inside(Dataset, {key: path})
        else:
            with pytest.raises(UserError, match="is outside the data set's folder 'data'"):
                check_inside(Dataset, {key: path})
    check_inside(Dataset, dict(name=path, img_path=None))


@pytest.mark.parametrize('path', [None, 'https://example.org/a.png', 'none.png'])
def test_what_is_no_local_file_is_left_to_its_reader(path):
    check_regular(path)


@pytest.mark.parametrize('name', ['../../secret.png', '/dev/zero', '/etc/passwd', 'pipe'])
def test_file_names_of_annotations(name, tmp_path, monkeypatch):
    """``file_name`` of a COCO json; a pipe inside the folder would wait for ever."""
    from mmdet.datasets import CocoDataset

    prepare_loading(Config(dict(default_scope='mmdet')))
    (tmp_path / 'data').mkdir()
    os.mkfifo(tmp_path / 'data' / 'pipe')
    image = dict(id=1, file_name=name, width=4, height=4)
    box = dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 2, 2], area=4, iscrowd=0)
    content = dict(images=[image], annotations=[box], categories=[dict(id=1, name='person')])
    (tmp_path / 'a.json').write_text(json.dumps(content))
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = CocoDataset(
            ann_file=str(tmp_path / 'a.json'),
            data_prefix=dict(img=str(tmp_path / 'data')),
            metainfo=dict(classes=('person',)),
            pipeline=[dict(type='LoadImageFromFile')],
        )
    with pytest.raises(UserError, match=r'outside the data set|is no regular file'):
        dataset[0]
    monkeypatch.setenv('MMDENSE_ALLOW_OUTSIDE', '1')
    with pytest.raises(UserError, match='cannot be read as an image'):
        dataset[0]
