"""An exported file is the model, at sizes that it was not traced with."""

import json
import runpy
import sys

import onnx
import pytest
import torch
from helpers import CONFIGS, PLAINEST, ROOT, TINY, build, check_fails, make_shallow
from mmengine.config import Config
from torch import nn

from mmdense.engine import building
from mmdense.inference.export import (
    CHECKED,
    FORMATS,
    AdaptivePool,
    Exported,
    find_error,
    free_sizes,
    make_image,
)

PACA = dict(embed_dims=[16, 24, 32, 40], num_heads=[2] * 4, depths=[0, 1, 0, 0], mlp_ratios=[2] * 4)
CHANNELS = PACA['embed_dims']
MODELS = {  # config and what makes it small
    'paca_t_in1k': dict(head=dict(num_classes=7, in_channels=40)),
    'upernet_paca_t_160k': dict(
        decode_head=dict(num_classes=7, channels=16, in_channels=CHANNELS),
        auxiliary_head=dict(num_classes=7, in_channels=32),
    ),
    'sem_fpn_paca_s_40k': dict(neck=dict(in_channels=CHANNELS), decode_head=dict(num_classes=7)),
    'paca_head_paca_t_160k': dict(
        decode_head=dict(num_classes=7, channels=16, in_channels=CHANNELS)
    ),
    'mask_rcnn_paca_t_1x': dict(neck=dict(in_channels=CHANNELS)),
    'mask2former_paca_s_160k': dict(
        decode_head=dict(
            in_channels=CHANNELS,
            num_queries=20,
            pixel_decoder=dict(encoder=dict(num_layers=1)),
            transformer_decoder=dict(num_layers=3),
        )
    ),
}


@pytest.mark.parametrize(
    'name, suffix',
    [
        *(pytest.param(name, '.onnx', marks=pytest.mark.slow) for name in TINY),
        *((name, '.pt2') for name in PLAINEST),
    ],
)
def test_backbones(name, suffix, tmp_path):
    model = nn.Module()
    model.backbone = build(name, **make_shallow(name))
    module = Exported(model, 'backbone').eval()
    write, read = FORMATS[suffix]
    path = tmp_path / f'backbone{suffix}'
    write(module, 3, path, {})
    run = read(path)
    for size in CHECKED:
        assert find_error(module, run, make_image(3, *size)) <= 1e-5


@pytest.fixture
def small(tmp_path):
    """Writes a small variant of a config, and a checkpoint of its weights; returns the paths."""

    def write(name: str) -> tuple[str, str]:
        config = tmp_path / f'{name}.py'
        changes = dict(MODELS[name], backbone=dict(arch=dict(PACA, _delete_=True), init_cfg=None))
        config.write_text(f"_base_ = 'mmdense::paca/{name}.py'\nmodel = {changes!r}\n")
        cfg = Config.fromfile(config)
        torch.manual_seed(0)
        torch.save(building.build_model(cfg).state_dict(), tmp_path / f'{name}.pth')
        return str(config), str(tmp_path / f'{name}.pth')

    return write


@pytest.mark.parametrize(
    'name, part, outputs',
    [
        ('paca_t_in1k', 'model', ['logits']),
        *(
            pytest.param(name, 'model', ['logits'], marks=pytest.mark.slow)
            for name in (
                'upernet_paca_t_160k',
                'sem_fpn_paca_s_40k',
                'paca_head_paca_t_160k',
                'mask2former_paca_s_160k',
            )
        ),
        ('mask_rcnn_paca_t_1x', 'neck', [f'map{i}' for i in range(5)]),
    ],
)
def test_tool(name, part, outputs, small, run_tool, tmp_path):
    """Classifier, segmentors with free sizes, and a detector's backbone and FPN."""
    out = tmp_path / 'model.onnx'
    code, printed, err = run_tool('export.py', *small(name), out, '--part', part)
    assert code == 0, err
    lines = printed.splitlines()
    assert sum('largest relative error' in line for line in lines) == 3
    assert lines[-1].startswith(f'{part} of this PaCaViT ')
    graph = onnx.load(out)
    (image,) = graph.graph.input
    batch = 1 if name.startswith('mask2former') else 'batch'  # which pads its images
    sizes = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
    assert sizes == [batch, 3, 'height', 'width']
    assert [o.name for o in graph.graph.output] == outputs
    meta = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(meta['mean']) == pytest.approx([123.675, 116.28, 103.53])
    assert meta['channels'] == 'RGB' and len(json.loads(meta['classes'])) > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, part, says',
    [
        ('paca_t_in1k', 'model', ': 0.'),
        ('upernet_paca_t_160k', 'model', '% of the pixels'),
        ('mask2former_paca_s_160k', 'model', '% of the pixels'),
        ('mask_rcnn_paca_t_1x', 'backbone', None),
    ],
)
def test_pictures(name, part, says, small, pictures, run_tool, tmp_path, monkeypatch, capsys):
    """With --uint8 a file takes a picture as Pillow reads it, and agrees with the model on it; the
    example runs it."""
    out = tmp_path / 'model.onnx'
    code, printed, err = run_tool('export.py', *small(name), out, '--uint8', '--part', part)
    assert code == 0, err
    lines = printed.splitlines()
    assert [line.partition(':')[0] for line in lines[:3]] == [
        '128 x 128 x 3',
        '97 x 135 x 3',
        '224 x 320 x 3',
    ]
    assert all('largest relative error' in line for line in lines[:3])
    graph = onnx.load(out)
    (image,) = graph.graph.input
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    meta = {entry.key: entry.value for entry in graph.metadata_props}
    assert meta['channels'] == 'RGB' and 'mean' not in meta
    if says:
        files = [out, next(pictures.rglob('*.png')), tmp_path / 'drawn.png']
        monkeypatch.setattr(sys, 'argv', ['run_onnx.py', *map(str, files)])
        runpy.run_path(str(ROOT / 'docs' / 'examples' / 'run_onnx.py'), run_name='__main__')
        assert says in capsys.readouterr().out and files[2].is_file()


def test_segmentor_is_the_whole_prediction(small, tmp_path):
    """The exported logits' maxima are what mmseg's own inference predicts."""
    config, checkpoint = small('upernet_paca_t_160k')
    cfg = Config.fromfile(config)
    model = building.load_model(cfg, checkpoint)
    image = make_image(3, 1, 96, 128)
    with torch.no_grad():
        sample = model.predict(image)[0]
        labels = Exported(model, 'model').eval()(image).argmax(dim=1)
    assert (labels == sample.pred_sem_seg.data).float().mean() > 0.999


def test_a_head_of_which_nothing_is_known():
    model = nn.Module()
    model.decode_head = nn.Identity()
    with pytest.raises(ValueError, match='Identity is no head'):
        Exported(model, 'model')


@pytest.mark.parametrize('size', [(7, 9), (12, 12), (1, 2), (5, 31)], ids=str)
@pytest.mark.parametrize('bins', [(1, 1), (2, 2), (3, 6), (6, 3)], ids=str)
def test_adaptive_pool(size, bins):
    x = torch.randn(2, 3, *size)
    assert AdaptivePool(bins)(x).allclose(nn.AdaptiveAvgPool2d(bins)(x), atol=1e-6)


def test_global_pools_stay():
    own = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.AdaptiveAvgPool2d(3)))
    module = free_sizes(own)
    assert isinstance(own[1][0], nn.AdaptiveAvgPool2d)  # the model itself is as it was
    assert isinstance(module[0], nn.AdaptiveAvgPool2d) and isinstance(module[1][0], AdaptivePool)


def test_a_file_that_differs_is_not_kept(small, run_tool, tmp_path, monkeypatch):
    def write_another(module, *args):
        nn.init.normal_(module.model.head.fc.weight)
        write(module, *args)
        nn.init.normal_(module.model.head.fc.weight)

    write, read = FORMATS['.pt2']
    monkeypatch.setitem(FORMATS, '.pt2', (write_another, read))
    out = tmp_path / 'out' / 'model.pt2'
    code, _, err = run_tool('export.py', *small('paca_t_in1k'), out)
    assert code == 1 and 'differs from the model' in err
    assert not list(out.parent.iterdir())


@pytest.mark.parametrize(
    'name, out, more, message',
    [
        ('paca_t_in1k', 'model.pb', [], '.onnx or .pt2'),
        ('mask_rcnn_paca_t_1x', 'model.pt2', [], 'go into .onnx files'),
        (
            'mask_rcnn_paca_t_1x',
            'model.onnx',
            ['--cfg-options', 'model.test_cfg.rcnn.nms.type=soft_nms'],
            'test_cfg.rcnn.nms',
        ),
        (
            'mask_rcnn_paca_t_1x',
            'model.onnx',
            ['--cfg-options', 'model.roi_head.type=DoubleHeadRoIHead'],
            'cannot be built',
        ),
        ('paca_t_in1k', 'model.pt2', ['--uint8'], 'go into .onnx files'),
        ('upernet_paca_t_160k', 'model.onnx', ['--part', 'neck'], 'this model has no neck'),
    ],
)
def test_what_cannot_be_exported(name, out, more, message, small, run_tool, tmp_path):
    check_fails(run_tool('export.py', *small(name), tmp_path / out, *more), message)
    assert not (tmp_path / out).exists()


def test_missing_checkpoint(small, run_tool, tmp_path):
    config, _ = small('paca_t_in1k')
    for path, message in (
        (config, 'does not exist'),
        (CONFIGS / '_base_' / 'ema.py', 'is no config of a classifier'),
    ):
        result = run_tool('export.py', path, tmp_path / 'nothing.pth', tmp_path / 'model.onnx')
        check_fails(result, message)
        assert not (tmp_path / 'model.onnx').exists()
