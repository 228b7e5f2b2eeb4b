"""The models are the published functions: published weights give published numbers.

Weights with the published names go through the conversion, are loaded strictly, and must give what
the authors' code gave. Run in both precisions: a wrong epsilon or an approximate GELU passes in
float32 and fails in float64.
"""

from typing import NamedTuple
from unittest import mock

import pytest
import torch
from helpers import CONFIGS, FAMILY, assert_near, build_in, float32_tolerance
from mmengine.config import Config

from mmdense.backbones.msf import GroupedLinear, sincos_position
from mmdense.serialization.conversion import convert, restore

# Published name -> the config that the conversion must find for it.
VARIANTS = {
    'pacavit_tiny_p2cconv_100_0': 'paca/paca_t_in1k.py',
    'pacavit_small_p2cconv_100_0': 'paca/paca_s_in1k.py',
    'pacavit_base_p2cconv_100_0': 'paca/paca_b_in1k.py',
    'pacavit_small_p2cmlp_100_0': 'paca/paca_s_mlp_in1k.py',
    'pacavit_small_p2cconv_2_0': 'paca/paca_s_2_0_in1k.py',
    'pacavit_small_p2cconv_49_0': 'paca/paca_s_49_0_in1k.py',
    'pacavit_small_p2cconv_100_49': 'paca/paca_s_100_49_in1k.py',
    'pacavit_small_p2cconv_100': 'paca/paca_s_100_in1k.py',
    'pacavit_convmixer_tiny_100': 'paca/paca_t_teacher_in1k.py',
    'pacavit_convmixer_small_100': 'paca/paca_s_teacher_in1k.py',
    'groupmixformer_miny': 'groupmixformer/groupmixformer_m_in1k.py',
    'groupmixformer_tiny': 'groupmixformer/groupmixformer_t_in1k.py',
    'groupmixformer_small': 'groupmixformer/groupmixformer_s_in1k.py',
    'groupmixformer_large': 'groupmixformer/groupmixformer_l_in1k.py',
    'fcvit_tiny': 'fcvit/fcvit_tiny_in1k.py',
    'fcvit_b12': 'fcvit/fcvit_b12_in1k.py',
    'fcvit_b48': 'fcvit/fcvit_b48_in1k.py',
    'SimpleViTS_orig': 'msf/msf_s_orig_in1k.py',
    'SimpleViTS_orig-g2': 'msf/msf_s_orig_g2_in1k.py',
    'SimpleViTS_msf': 'msf/msf_s_in1k.py',
    'SimpleViTS_msf-g2': 'msf/msf_s_g2_in1k.py',
}
DTYPES = [torch.float32, torch.float64]
DRAWS = ('kaiming_uniform_', 'normal_', 'trunc_normal_', 'uniform_')  # of torch.nn.init
MSF_POSITIONS = 2e-6  # the published position table is float32 in every precision


def build(cfg: dict, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """A model with exactly these tensors; random numbers are not drawn first, to be replaced."""
    with mock.patch.multiple(torch.nn.init, **dict.fromkeys(DRAWS, lambda t, *_, **__: t)):
        model = build_in('mmpretrain', cfg)
    model.load_state_dict(state, strict=True)
    return model


LARGEST = ('groupmixformer_large', 'fcvit_b48')


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def run(model: torch.nn.Module, x: torch.Tensor, **kwargs):
    with torch.inference_mode():
        return model(x, **kwargs)


def check_map(ref, name: str, spec: dict, got: torch.Tensor) -> None:
    """A map against its recorded channels (float32) or its means (float64)."""
    assert list(got.shape) == spec['shape']
    if got.dtype == torch.float64:
        atol = 2e-7 * max(1, spec['max_abs'])
        assert_near(got.mean((2, 3)), ref.vectors[f'{name}_chan_mean'], atol)
        assert_near(got.mean(1), ref.vectors[f'{name}_loc_mean'], atol)
    else:
        want = ref.vectors[name]
        assert_near(got[:, :: spec['channel_step']], want, float32_tolerance(spec))


class Variant(NamedTuple):
    """The reference of a variant, its config, its published weights, and these converted."""

    ref: object
    cfg: Config
    published: dict
    state: dict


@pytest.fixture(
    scope='module',
    params=[
        pytest.param(name, marks=pytest.mark.slow) if name in LARGEST else name for name in VARIANTS
    ],
)
def variant(request, golden):
    ref = golden(request.param)
    published = ref.state(torch.float32)
    conversion = convert(published)
    assert conversion.config == f'configs/{VARIANTS[request.param]}'
    cfg = Config.fromfile(CONFIGS / VARIANTS[request.param])
    return Variant(ref, cfg, published, conversion.state_dict)


@pytest.fixture(scope='module')
def classifier(variant):
    model = build(variant.cfg.model, variant.state)
    assert count(model) == variant.ref.manifest['num_params']
    return model


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_logits(variant, classifier, dtype):
    """Float32 weights in both precisions: the model goes from one to the other without loss."""
    ref = variant.ref
    spec = ref.manifest['classification']
    logits = run(classifier.to(dtype), ref.image(spec['input'], dtype), mode='tensor')
    if dtype == torch.float64:
        atol = MSF_POSITIONS if 'tokens' in spec else 1e-8
        assert_near(logits, ref.vectors['logits_f64'], atol)
    else:
        assert_near(logits, ref.vectors['logits'], float32_tolerance(spec))


@pytest.fixture(scope='module', params=['feature', 'segmentation_feature'])
def dense(request, variant):
    """The name of a dense form, and the backbone in it."""
    form = request.param
    ref, cfg = variant.ref, variant.cfg
    if form not in ref.manifest:
        pytest.skip('not recorded for this model')
    spec = ref.manifest[form]
    shapes = {key: new for key, _, new in spec['keys']['shape_differs']}
    options = {'clusters': spec['downstream_cluster_num']} if shapes else {}
    if cfg.model.backbone.type == 'mmdense.GroupMixFormer':
        options['final_norm'] = False

    published = dict(variant.published)
    for key, _, kind in ref.manifest['state']:
        if key in shapes:
            published[key] = ref.weight(key, shapes[key], kind)
    for entry in spec['keys']['only_in_classification']:
        del published[entry]
    for key, shape, kind in spec['keys']['only_in_feature']:
        published[key] = ref.weight(key, shape, kind)
    conversion = convert({f'backbone.{key}': value for key, value in published.items()})
    converted = conversion.state_dict
    if 'same_network_as' not in spec and form == 'feature':
        assert conversion.config == f'configs/{VARIANTS[ref.manifest["name"]]}'
    converted = {k.removeprefix('backbone.'): v for k, v in converted.items()}
    model = build({**cfg.model.backbone, 'out_indices': (0, 1, 2, 3), **options}, converted)
    assert count(model) == spec['num_params']
    return form, model


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_maps(variant, dense, dtype, golden):
    """The dense form; for PaCa-ViT also with the segmentors' number of clusters."""
    form, model = dense
    ref = variant.ref
    spec = ref.manifest[form]
    model.to(dtype)
    if 'same_network_as' in spec:
        ref = golden(spec['same_network_as'])
        spec = ref.manifest[form]
    for name, vector in spec['vectors'].items():
        maps = run(model, ref.image(vector['input'], dtype))
        for i, (stage, got) in enumerate(zip(vector['stages'], maps, strict=True), start=1):
            check_map(ref, f'{name}_stage{i}', stage, got)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_tokens(variant, dtype):
    """What leaves the transformer, before pooling: MSF has no published dense form."""
    ref, cfg, _, state = variant
    spec = ref.manifest['classification']
    if 'tokens' not in spec:
        pytest.skip('not recorded for this model')
    prefixes = ('backbone.norm.', 'head.')  # what comes behind the tokens
    state = {k.removeprefix('backbone.'): v for k, v in state.items() if not k.startswith(prefixes)}
    model = build({**cfg.model.backbone, 'out_type': 'featmap'}, state)
    (feature,) = run(model.to(dtype), ref.image(spec['input'], dtype))
    tokens = feature.flatten(2).transpose(1, 2)
    assert list(tokens.shape) == spec['tokens']['shape']
    if dtype == torch.float64:
        assert_near(tokens.mean(1), ref.vectors['tokens_chan_mean'], MSF_POSITIONS)
        assert_near(tokens.mean(2), ref.vectors['tokens_token_mean'], MSF_POSITIONS)
    else:
        tolerance = float32_tolerance(spec['tokens'])
        assert_near(tokens[:, ::7], ref.vectors['tokens'], tolerance)


def test_drop_path_rates(variant, classifier):
    """Stochastic depth is invisible in evaluation: the rate of each block is compared."""
    published = variant.ref.manifest['settings']['drop_path']
    if not published:
        pytest.skip('not recorded for this model')
    rates = [block.drop_path.drop_prob for s in classifier.backbone.stages for block in s.blocks]
    assert sorted(set(published.values())) == pytest.approx([rate for rate in rates if rate])


def test_conversion_goes_both_ways(variant):
    family = VARIANTS[variant.ref.manifest['name']].split('/')[0]
    restored = restore(variant.state, FAMILY[family])
    assert restored.keys() == variant.published.keys()
    assert all(torch.equal(restored[key], value) for key, value in variant.published.items())


# tiny networks, one option changed

DIMS = (16, 24, 32, 40)
TINY = {
    'paca': dict(
        type='mmdense.PaCaViT',
        arch=dict(
            embed_dims=DIMS, num_heads=(2, 2, 4, 4), depths=(1, 2, 3, 1), mlp_ratios=(4, 4, 2, 2)
        ),
        clusters=(9, 9, 9, 0),
        out_indices=(3,),
    ),
    'fcvit': dict(
        type='mmdense.FCViT',
        arch=dict(embed_dims=DIMS, depths=(1, 1, 2, 1), mlp_ratios=(4, 4, 2, 2)),
        out_indices=(3,),
    ),
    'groupmixformer': dict(
        type='mmdense.GroupMixFormer',
        arch=dict(embed_dims=(40, 40, 80, 80), depths=(1, 2, 1, 1), mlp_ratios=(4, 4, 2, 2)),
        final_norm=True,
        out_indices=(3,),
    ),
    'msf': dict(
        type='mmdense.MSFViT',
        arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
        patch_size=8,
        out_type='avg_featmap',
    ),
}
OPTIONS = {
    'paca/default': dict(),
    'paca/pos_embed': dict(pos_embed=True, img_size=64),
    'paca/cluster_pos_embed': dict(cluster_pos_embed=True),
    'paca/post_norm': dict(post_norm=True),
    'paca/sub_ln': dict(sub_ln=True),
    'paca/layer_scale': dict(layer_scale=0.01),
    'paca/no_cluster_norm': dict(cluster_norm=False),
    'paca/linear_blockwise': dict(
        clustering='linear', clustering_interval=1, clusters=(9, 9, 9, 9)
    ),
    'paca/every_second_block': dict(clustering_interval=2, clusters=(9, 9, 9, 9)),
    'paca/kernel5_no_dwconv': dict(clustering_kernel_size=(5, 5, 3, 3), mlp_dwconv=False),
    'paca/mlp_dwconv_no_shortcut': dict(clustering='mlp', mlp_shortcut=False),
    'paca/plain_attention': dict(clusters=(0, 0, 0, 0)),
    'fcvit/default': dict(),
    'fcvit/not_compete': dict(compete=False),
    'fcvit/unweighted_gc': dict(weighted_context=False),
    'fcvit/no_gc': dict(global_context=False),
    'fcvit/one_token_mix': dict(num_mixers=1),
    'fcvit/spatial_att': dict(spatial_attention=True),
    'fcvit/channel_att': dict(channel_attention=True),
    'fcvit/no_dwconv': dict(mlp_dwconv=False),
    'fcvit/fc_factor1': dict(fc_reduction=1),
    'fcvit/no_layer_scale': dict(layer_scale=None),
    'groupmixformer/tiny_net': dict(),
    'msf/vit_orig': dict(attention='orig'),
    'msf/vit_msf': dict(attention='msf'),
    'msf/vit_msf-g2': dict(attention='msf', groups=2),
    'msf/vit_orig-g4': dict(attention='orig', groups=4),
}


@pytest.fixture(scope='module')
def options(golden):
    return golden('options')


def option_input(ref, name: str) -> dict:
    kind = 'paca/pos_embed' if name == 'paca/pos_embed' else 'paca, fcvit, groupmixformer'
    return ref.manifest['inputs']['msf/vit*' if name.startswith('msf') else kind]


def test_every_recorded_option_is_tested(options):
    layers = {k for k in options.vectors if k.startswith(('msf/group_linear', 'msf/posemb'))}
    assert options.vectors.keys() == OPTIONS.keys() | layers
    assert len(options.vectors) == 36  # 35 networks and layers, and the position table


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('name', OPTIONS)
def test_option(options, name, dtype):
    family = name.split('/')[0]
    backbone = {**TINY[family], **OPTIONS[name]}
    width = backbone['arch']['embed_dims']
    classifier = dict(
        type='ImageClassifier',
        backbone=backbone,
        neck=None if family == 'msf' else dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=10,
            in_channels=width if isinstance(width, int) else width[-1],
        ),
    )
    entry = options.manifest['vectors'][name]
    state = {key: options.weight(key, *rest) for key, *rest in entry['state']}
    state = {
        key if key.startswith('head.') else f'backbone.{key}': value
        for key, value in FAMILY[family].naming.convert(state).items()
    }
    model = build(classifier, state)
    logits = run(model.to(dtype), options.image(option_input(options, name), dtype), mode='tensor')
    # Only float32 is recorded, and by how much it differs from float64.
    exact = 1.01 * entry['f32_vs_f64_max_abs'] + 1e-9
    atol = exact if dtype == torch.float64 else float32_tolerance(entry)
    assert_near(logits, options.vectors[name], atol)


@pytest.mark.parametrize('bias', [0, 1])
@pytest.mark.parametrize('groups', [2, 3])
@pytest.mark.parametrize('order', ['interleave', 'block'])
def test_grouped_linear(options, order, groups, bias):
    from weight_rule import make_input

    name = f'msf/group_linear_{order}_g{groups}_bias{bias}'
    entry = options.manifest['vectors'][name]
    layer = GroupedLinear(12, 24, groups, order, bias=bool(bias))
    layer.load_state_dict({key: options.weight(key, *rest) for key, *rest in entry['state']})
    x = torch.from_numpy(make_input(2001, 2, 7, 12, channels=1)[:, 0])
    assert_near(layer(x).detach(), options.vectors[name], float32_tolerance(entry))


def test_msf_position_table(options):
    table = sincos_position((14, 14), 384, torch.device('cpu'))
    assert_near(table[::7], options.vectors['msf/posemb_14x14x384_every7'], MSF_POSITIONS)
