"""The data sets that a config names."""

import pytest
from helpers import DIGIT_CONFIGS, load_config
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.config import Config, ConfigDict

from mmdense.engine.data import (
    build_dataset,
    build_pipeline,
    find_classes,
    find_dataset_meta,
    find_datasets,
    find_num_classes,
    prepare_loading,
)
from mmdense.errors import UserError
from mmdense.serialization.checkpoint import get_classes


def test_data_sets_below_wrappers_are_found():
    inner = [dict(type='A', data_root='a'), dict(type='B', data_root='b')]
    concat = dict(type='ConcatDataset', datasets=inner)
    wrapped = ConfigDict(type='RepeatDataset', times=2, dataset=concat)
    assert [d.type for d in find_datasets(wrapped)] == ['A', 'B']


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
    classes = find_dataset_meta(load_config(name))['classes']
    assert classes[0].startswith(first) and len(classes) == number


def test_classes_that_fit_the_model():
    """The checkpoint's names, or the data set's, if there are enough of them; or else numbers."""
    cfg = Config.fromfile(DIGIT_CONFIGS['mmdet'])
    ten = tuple('abcdefghij')
    for meta in (dict(dataset_meta=dict(classes=ten)), dict(CLASSES=ten)):
        assert find_classes(cfg, get_classes(meta))['classes'] == ten
    for known in ({}, dict(classes='ab')):
        assert find_classes(cfg, known)['classes'] == tuple('0123456789')
    cfg.test_dataloader.dataset.metainfo.classes = 'nothing.txt'
    assert find_classes(cfg, {})['classes'] == tuple('0123456789')
    cascade = dict(roi_head=dict(bbox_head=[dict(num_classes=7), dict(num_classes=7)]))
    assert find_num_classes(cascade) == 7


def test_names_of_the_config_come_before_those_of_its_data_sets_kind():
    def find(**dataset: object) -> dict:
        dataset = dict(type='CocoDataset', **dataset)
        return find_dataset_meta(
            Config(dict(default_scope='mmdet', test_dataloader=dict(dataset=dataset)))
        )

    coco = find()
    assert coco['classes'][0] == 'person' and len(coco['palette']) == 80
    assert find(metainfo=None) == find(metainfo={}) == coco
    assert find(metainfo=dict(classes=('a',))) == dict(coco, classes=('a',))
    assert find(classes=['b'], metainfo=dict(classes=('a',), x=1)) == dict(coco, classes=['b'], x=1)
    assert find_dataset_meta(Config(dict(default_scope='mmdet'))) == {}
    assert find_dataset_meta(Config(dict(default_scope='mmdet', test_dataloader=None))) == {}


@pytest.mark.parametrize(
    'number, known, found', [(2, 'abc', 'abc'), (3, 'abc', 'abc'), (4, 'abc', '0123')]
)
def test_as_many_names_as_classes_or_more(number, known, found):
    cfg = Config(dict(default_scope='mmdet', model=dict(head=dict(num_classes=number))))
    meta = find_classes(cfg, dict(classes=list(known), palette=[]))
    assert meta['classes'] == tuple(found) and ('palette' in meta) == (known == found)


def test_no_names_are_needed_where_no_number_is_known():
    cfg = Config(dict(default_scope='mmdet', model=dict(head=dict())))
    assert find_classes(cfg, dict(classes=['a'])) == dict(classes=('a',))
    assert find_classes(cfg, dict(classes=None)) == dict(classes=())


@pytest.mark.parametrize('scope', DIGIT_CONFIGS)
def test_from_a_picture_to_the_input(scope, place):
    """Of the test pipeline, though there are no annotations."""
    cfg = Config.fromfile(DIGIT_CONFIGS[scope])
    wanted = build_dataset(cfg, 'test')[0]
    path = wanted['data_samples'].img_path
    found = build_pipeline(cfg)(dict(img_path=path, img_id=0))
    assert (found['inputs'] == wanted['inputs']).all()
    assert found['data_samples'].img_path == path
    assert len(found['data_samples'].get('gt_instances', ())) == 0
    assert 'gt_sem_seg' not in found['data_samples']


def test_what_has_no_pipeline_or_no_data():
    steps = [dict(type='LoadAnnotations'), dict(type='PackDetInputs')]
    data = dict(type='CocoDataset', pipeline=steps)
    for loader in (dict(), dict(test_dataloader=None), dict(test_dataloader=dict(dataset=data))):
        cfg = Config(dict(default_scope='mmdet', **loader))
        with pytest.raises(UserError, match='no pipeline of test_dataloader reads a picture'):
            build_pipeline(cfg)
        with pytest.raises(UserError, match=r'^the config has no val_dataloader$'):
            build_dataset(cfg, 'val')


def test_data_without_a_sample(place):
    """Of no class that is wanted; what else a data set refuses passes."""
    cfg = Config.fromfile(DIGIT_CONFIGS['mmdet'])
    cfg.train_dataloader.dataset.update(metainfo=dict(classes=('ten',)))
    with pytest.raises(UserError, match=r'^no image of train_dataloader is left; check ann_file'):
        build_dataset(cfg, 'train')
    cfg.train_dataloader.dataset.update(indices='all', metainfo=None)
    with pytest.raises(Exception) as error:
        build_dataset(cfg, 'train')
    assert not isinstance(error.value, UserError)


@pytest.mark.parametrize(
    'make, key',
    [
        (LoadImageFromFile, 'img_path'),
        (lambda: LoadAnnotations(with_bbox=False, with_label=False, with_seg=True), 'seg_map_path'),
    ],
)
def test_pictures_that_cannot_be_read_are_named(make, key, tmp_path):
    """Also where it is no regular file, which is not opened at all."""
    prepare_loading(Config(dict(default_scope='mmengine')))
    path = tmp_path / 'a.png'
    path.write_bytes(b'no picture')
    with pytest.raises(UserError, match=rf"^'{path}' cannot be read as an image; mend or remove"):
        make().transform({key: str(path)})
    with pytest.raises(UserError, match=rf"^'{tmp_path}' cannot be read as an image: it is no reg"):
        make().transform({key: str(tmp_path)})
