"""tools/export.py: files of models of any task, and bad input."""

import json
import runpy
import sys
from collections.abc import Callable
from functools import partial

import onnx
import pytest
from helpers import CONFIGS, ROOT, check_fails
from small_models import write_small
from torch import nn

from mmdense.inference.export import FORMATS


@pytest.fixture
def small(tmp_path) -> Callable[[str], tuple[str, str]]:
    return partial(write_small, folder=tmp_path)


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


def test_configs_and_checkpoints_that_are_none(small, run_tool, tmp_path):
    config, _ = small('paca_t_in1k')
    for path, message in (
        (config, 'does not exist'),
        (CONFIGS / '_base_' / 'ema.py', 'is no config of a classifier'),
    ):
        result = run_tool('export.py', path, tmp_path / 'nothing.pth', tmp_path / 'model.onnx')
        check_fails(result, message)
        assert not (tmp_path / 'model.onnx').exists()
