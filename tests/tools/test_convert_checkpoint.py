"""tools/convert_checkpoint.py: files in every format that the four originals write."""

import sys
import types
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import FAMILY, ROOT, build_in, check_fails, load_config
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file

from mmdense.serialization.checkpoint import load_file
from mmdense.serialization.conversion import convert

(PACA_HEAD,) = FAMILY['paca'].head_naming


@pytest.fixture
def tool(run_tool) -> Callable[..., tuple[int, str, str]]:
    """Runs tools/convert_checkpoint.py; returns its exit code, output and errors."""
    return partial(run_tool, 'convert_checkpoint.py')


@pytest.fixture
def yacs_config():
    """An object of yacs' class, as training files of GroupMixFormer hold it; yacs is not here."""

    class CfgNode(dict):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.__dict__['__immutable__'] = True

    CfgNode.__module__, CfgNode.__qualname__ = 'yacs.config', 'CfgNode'
    sys.modules['yacs'] = types.ModuleType('yacs')
    sys.modules['yacs.config'] = types.ModuleType('yacs.config')
    sys.modules['yacs.config'].CfgNode = CfgNode
    yield CfgNode(MODEL=CfgNode(NAME='groupmixformer'), AMP=True)
    del sys.modules['yacs'], sys.modules['yacs.config']


def published_file(family: str, state: dict, yacs_config: dict) -> dict:
    """What a family's training code saves around its weights."""
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    args = Namespace(lr=1e-3, model='x', output=Path('out'))
    if family in ('paca', 'fcvit'):  # timm's saver
        return dict(epoch=3, arch='x', args=args, state_dict=other, state_dict_ema=state, version=2)
    if family == 'groupmixformer':
        return dict(model=state, config=yacs_config, epoch=3)
    averaged = {'n_averaged': torch.tensor(5)} | {f'module.{k}': v for k, v in state.items()}
    return dict(model=other, model_ema=averaged, args=args, epoch=3)


@pytest.mark.parametrize('family', FAMILY)
def test_a_training_file(family, smallest, tmp_path, yacs_config, tool):
    """Settings objects are read without their packages; averaged weights are taken on demand."""
    ref, state = smallest(family)
    src, dst = tmp_path / 'published.pth', tmp_path / 'new' / 'converted.pth'
    torch.save(published_file(family, state, yacs_config), src)
    raw = family == 'groupmixformer'
    code, out, err = tool(src, dst, *([] if raw else ['--ema']))
    assert code == 0, err
    expected = convert(state)
    assert expected.config in out
    assert 'classifier of 1000 classes' in out
    written = load_file(dst)
    assert written.keys() == {'state_dict'}
    assert written['state_dict'].keys() == expected.state_dict.keys()
    assert all(torch.equal(v, expected.state_dict[k]) for k, v in written['state_dict'].items())

    model = build_in('mmpretrain', Config.fromfile(ROOT / expected.config).model)
    model.load_state_dict(written['state_dict'], strict=True)
    spec = ref.manifest['classification']
    with torch.inference_mode():
        logits = model(ref.image(spec['input'], torch.float32), mode='tensor')
    want = torch.from_numpy(ref.vectors['logits'])
    atol = max(5e-5, 30 * spec['f32_vs_f64_max_abs'])
    torch.testing.assert_close(logits, want, rtol=0, atol=atol)


def dense_model(kind: str) -> torch.nn.Module:
    if kind == 'mask_rcnn':
        cfg = load_config('paca/mask_rcnn_paca_t_1x')
        cfg.model.backbone = dict(type='mmdense.FCViT', arch='tiny', layer_scale=1e-6)
        cfg.model.neck.in_channels = [32, 64, 160, 320]
        return build_in('mmdet', cfg.model)
    cfg = load_config('paca/upernet_paca_t_160k')
    cfg.model.auxiliary_head = None
    cfg.model.backbone.init_cfg = None
    cfg.model.data_preprocessor = None
    cfg.model.decode_head = dict(
        type='mmdense.PaCaSegHead',
        in_channels=[96, 192, 320, 384],
        num_classes=150,
        norm_cfg=dict(type='BN'),
    )
    return build_in('mmseg', cfg.model)


@pytest.mark.parametrize('kind, family', [('mask_rcnn', 'fcvit'), ('paca_head', 'paca')])
def test_dense_files(kind, family, tmp_path, tool):
    """A detector's file as mmcv 1.x writes it, a segmentor's as mmengine does."""
    model = dense_model(kind)
    own = model.state_dict()
    backbone = {k.removeprefix('backbone.'): v for k, v in own.items() if k.startswith('backbone.')}
    published = {f'backbone.{k}': v for k, v in FAMILY[family].naming.restore(backbone).items()}
    rest = {k: v for k, v in own.items() if not k.startswith('backbone.')}
    if kind == 'paca_head':
        head = {k.removeprefix('decode_head.'): v for k, v in rest.items()}
        rest = {f'decode_head.{k}': v for k, v in PACA_HEAD.restore(head).items()}
        assert 'decode_head.k.2.running_mean' in rest and rest['decode_head.k.0.weight'].dim() == 2
    src, dst = tmp_path / 'published.pth', tmp_path / 'converted.pth'
    classes = ('wall', 'building')
    file = dict(
        meta=dict(epoch=12, config='model = ...', dataset_meta=dict(classes=classes)),
        state_dict=published | rest,
        optimizer=dict(state={0: dict(exp_avg=torch.zeros(2))}, param_groups=[dict(lr=1e-4)]),
        message_hub=dict(log_scalars={'train/loss': HistoryBuffer([1.0], [1])}),
    )
    torch.save(file, src)
    code, out, err = tool(src, dst)
    assert code == 0, err
    if kind == 'paca_head':
        assert 'stages.0.blocks.0.attn.clustering.assign.weight (200, 96) for (100, 96)' in out
        assert 'with decode_head' in out
    assert load_file(dst)['meta'] == dict(dataset_meta=dict(classes=classes))
    converted = load_file(dst)['state_dict']
    model.load_state_dict(converted, strict=True)
    assert all(torch.equal(converted[k], v) for k, v in own.items())


def test_safetensors_both_ways(smallest, tmp_path, tool):
    _, state = smallest('msf')
    src, dst = tmp_path / 'published.safetensors', tmp_path / 'converted.safetensors'
    save_file(state, src)
    assert tool(src, dst)[0] == 0
    written, expected = load_file(dst), convert(state).state_dict
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[key], value) for key, value in expected.items())


class TestBadInput:
    """One line, exit code 1, and nothing written."""

    @pytest.fixture
    def fails(self, tool, tmp_path):
        def check(state: object, *messages: str, args: tuple = ()) -> None:
            src, dst = tmp_path / 'in.pth', tmp_path / 'out.pth'
            torch.save(state, src)
            check_fails(tool(src, dst, *args), *messages)
            assert sorted(p.name for p in tmp_path.iterdir()) == ['in.pth']

        return check

    def test_no_published_variant(self, smallest, fails):
        """Names the nearest and what differs."""
        _, state = smallest('paca')
        del state['stage3.3.attn.q.weight']
        state['stage1.0.extra.weight'] = torch.zeros(3)
        state['norm1.weight'] = torch.zeros(97)
        fails(
            dict(state_dict=state),
            'nearest is configs/paca/paca_t_in1k.py',
            '1 missing (stages.2.blocks.3.attn.q.weight)',
            '1 unexpected (stages.0.blocks.0.extra.weight)',
            '1 of another shape (stages.0.norm.weight (97,) for (96,))',
        )

    @pytest.mark.parametrize(
        'content, args, message',
        [
            (
                dict(state_dict={'conv1.weight': torch.zeros(64, 3, 7, 7)}),
                (),
                'of no published variant; nearest is configs/',
            ),
            (dict(model={'x': torch.zeros(1)}, epoch=3), ('--ema',), 'no averaged weights'),
            (dict(state_dict={}, epoch=3), (), 'no weights, but state_dict, epoch'),
            ([1, 2], (), 'no dict of tensors'),
            (dict(model='fcvit_b12', epoch=1), (), 'no weights, but model, epoch'),
            ({0: torch.zeros(1)}, (), "'0' in it is no name"),
            (
                dict(state_dict_ema={'a': torch.zeros(1)}),
                (),
                '--ema reads the averaged weights',
            ),
            (
                dict(model={}, args=print),  # a pickle that would run code
                (),
                'it holds builtins.print: only tensors and plain data are read',
            ),
        ],
        ids=['other', 'no_average', 'empty', 'list', 'name', 'number', 'average', 'code'],
    )
    def test_what_is_no_file_of_weights(self, content, args, message, fails):
        fails(content, message, args=args)

    def test_a_cluster_layer_that_does_not_fit(self, fails):
        """In dense files only the number of clusters may differ."""
        model = build_in('mmpretrain', dict(type='mmdense.PaCaViT', arch='tiny'))
        state = {
            f'backbone.{k}': v for k, v in FAMILY['paca'].naming.restore(model.state_dict()).items()
        }
        name = 'backbone.stage3.0.attn.clustering.clustering.4.weight'
        ours = 'stages.2.blocks.0.attn.clustering.assign.weight'
        fails(state | {name: torch.zeros(100, 7, 1, 1)}, f'{ours} (100, 7) for (100, 320)')
        del state[name]
        fails(state, f'1 missing ({ours})')

    def test_paths(self, tmp_path, tool):
        path = tmp_path / 'in.pth'
        torch.save(dict(model={'x': torch.zeros(1)}), path)
        before = path.read_bytes()
        for src, dst, message in [
            (tmp_path / 'none.pth', tmp_path / 'out.pth', 'does not exist'),
            (tmp_path / 'none.pth', tmp_path, 'is a folder'),
            (tmp_path / 'none.pth', path, 'does not exist'),
            (path, path, 'published file itself'),
        ]:
            check_fails(tool(src, dst), message)
        assert path.read_bytes() == before
