"""What every backbone promises, whatever its architecture."""

import re

import pytest
import torch
from helpers import TINY, build, check_gradients
from mmengine.registry import MODELS
from torch import nn

import mmdense.backbones as backbones
from mmdense.backbones.layers import to_map, to_tokens

NAMED = [
    (name, arch)
    for name in ('PaCaViT', 'GroupMixFormer', 'FCViT', 'MSFViT')
    for arch in getattr(backbones, name).arch_zoo
]
SIZES = [(32, 32), (33, 47), (64, 96), (224, 224), (225, 311)]
LARGE = (800, 1333)  # for the small networks


def blocks_of(model: nn.Module) -> list[nn.Module]:
    if hasattr(model, 'layers'):
        return list(model.layers)
    return [block for stage in model.stages for block in stage.blocks]


def check_maps(model: nn.Module, maps: tuple, batch: int, size: tuple[int, int]) -> None:
    """One finite channels_last map per stage, of ceil(side / stride)."""
    height, width = size
    plain = isinstance(model, backbones.MSFViT)
    assert len(maps) == len(model.out_indices)
    for i, feature in zip(model.out_indices, maps):
        stride = 16 if plain else 4 * 2**i
        assert feature.shape[0] == batch
        assert feature.shape[2:] == (-(-height // stride), -(-width // stride))
        assert feature.is_contiguous(memory_format=torch.channels_last)
        assert feature.isfinite().all()


@pytest.fixture(params=TINY)
def name(request):
    return request.param


@pytest.mark.parametrize('size', [*SIZES, LARGE], ids=str)
@pytest.mark.parametrize('batch', [1, 3])
def test_any_size(name, size, batch):
    if size == LARGE and batch == 3:
        pytest.skip('one large image is enough')
    model = build(name).eval()
    with torch.no_grad():
        check_maps(model, model(torch.randn(batch, 3, *size)), batch, size)


@pytest.mark.parametrize('family, arch', NAMED)
def test_any_size_of_every_published_arch(family, arch):
    model = MODELS.build(dict(type=f'mmdense.{family}', arch=arch)).eval()
    settings = model.get_arch(arch)
    smallest = arch == next(iter(model.arch_zoo))
    batches = [(3, SIZES[0]), (1, SIZES[1]), (3, SIZES[2]), (1, SIZES[3]), (1, SIZES[4])]
    for batch, size in [*batches, (1, LARGE)] if smallest else batches:
        with torch.no_grad():
            maps = model(torch.randn(batch, 3, *size))
        check_maps(model, maps, batch, size)
        dims = settings['embed_dims']
        dims = (dims,) if isinstance(dims, int) else dims
        assert tuple(m.shape[1] for m in maps) == dims


def test_layout_of_the_input_does_not_matter(name):
    model = build(name).eval()
    x = torch.randn(2, 3, 64, 96)
    for a, b in zip(model(x), model(x.to(memory_format=torch.channels_last))):
        assert torch.equal(a, b)


def test_out_indices(name):
    x = torch.randn(1, 3, 64, 64)
    maps = build(name).eval()(x)
    wanted = [-1, 1]
    model = build(name, out_indices=wanted).eval()
    assert wanted == [-1, 1]
    last, second = model(x)
    torch.testing.assert_close(last, maps[3])
    torch.testing.assert_close(second, maps[1])
    (one,) = build(name, out_indices=-1).eval()(x)
    torch.testing.assert_close(one, maps[3])
    with pytest.raises(ValueError, match='out_indices'):
        build(name, out_indices=(4,))


def test_frozen_stages(name):
    """k freezes the stem, the first k stages (layers of MSF), and what clusters for them."""
    for frozen_stages in (0, 2):
        model = build(name, frozen_stages=frozen_stages).train()
        stem = r'patch_embed\.|stem\.'
        if not hasattr(model, 'stem') and not hasattr(model, 'patch_embed'):
            stem = r'stages\.0\.downsample\.'
        pattern = stem if frozen_stages == 0 else stem + r'|(stages|layers)\.[01]\.|teacher\.'
        frozen = {k for k, p in model.named_parameters() if not p.requires_grad}
        assert frozen and frozen == {k for k, _ in model.named_parameters() if re.match(pattern, k)}
        before = {k: b.clone() for k, b in model.named_buffers()}
        sum(m.square().mean() for m in model(torch.randn(2, 3, 64, 64))).backward()
        assert all((p.grad is None) == (k in frozen) for k, p in model.named_parameters())
        for key, buffer in model.named_buffers():  # running statistics of frozen batch norms
            if re.match(pattern, key):
                assert torch.equal(buffer, before[key])
    with pytest.raises(ValueError, match='frozen_stages'):
        build(name, frozen_stages=5)


def test_norm_eval(name):
    model = build(name, norm_eval=True).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    assert all(block.training for block in blocks_of(model))
    assert bool(norms) == (name in ('PaCaViT-teacher', 'GroupMixFormer') or 'FCViT' in name)


def test_checkpointing_changes_nothing(name):
    """Each block runs once more, in the backward pass, with the same random numbers."""
    x = torch.randn(2, 3, 64, 64)
    outputs, grads, runs = [], [], []

    def count_run(*_: object) -> None:
        runs[-1] += 1

    for with_cp in (False, True):
        model = build(name, with_cp=with_cp, drop_path_rate=0.5).train()
        runs.append(0)
        for block in blocks_of(model):
            block.register_forward_pre_hook(count_run)
        torch.manual_seed(3)
        out = model(x)[-1]
        out.square().sum().backward()
        outputs.append(out)
        grads.append([p.grad for p in model.parameters()])
    assert runs[1] == 2 * runs[0] == 2 * len(blocks_of(model))
    assert torch.equal(*outputs)
    for a, b in zip(*grads):
        if a is None:  # a norm of another map
            assert b is None
        else:
            torch.testing.assert_close(a, b)


# A constant added to what a softmax normalizes changes nothing: the true gradient is zero.
ZERO_GRADIENT = re.compile(
    r'blocks\.\d+\.attn\.k\.bias$|clustering\.assign\.bias$|teacher\.assigns\.\d\.bias$'
)


def test_every_parameter_gets_a_gradient(name):
    model = build(name).double().eval()
    sum(m.square().sum() for m in model(torch.randn(2, 3, 64, 96).double())).backward()
    for key, p in model.named_parameters():
        assert p.grad is not None, key  # or DistributedDataParallel would wait for it
        assert p.grad.any() or ZERO_GRADIENT.search(key), key


def test_gradients_equal_finite_differences(name):
    """In float64, for the image and every parameter."""
    model = build(name).double().eval()
    x = torch.randn(1, 3, 33, 47, dtype=torch.float64).requires_grad_()
    weights = [torch.randn_like(m) for m in model(x)]

    def loss() -> torch.Tensor:
        return sum((w * m).sum() for w, m in zip(weights, model(x)))

    check_gradients(loss, {'image': x, **dict(model.named_parameters())})


def test_bfloat16_autocast_is_near_float32(name):
    model = build(name).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        want = model(x)
        with torch.autocast('cpu', torch.bfloat16):
            got = model(x)
    for a, b in zip(want, got):
        assert b.isfinite().all()
        assert (a - b.float()).abs().mean() < 0.05 * a.abs().mean()


@pytest.mark.slow
def test_compiles_without_graph_breaks(name):
    model = build(name).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend='aot_eager')(x)
        for a, b in zip(model(x), compiled):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_layer_depths(name):
    """Each layer of the network learns with one id, rising from the stem; heads get the last."""
    model = build(name)
    depths = {}
    for key, _ in model.named_parameters():
        depths[key], num_layers = model.get_layer_depth(f'backbone.{key}', 'backbone.')
    assert num_layers == len(blocks_of(model)) + 2
    own = {k: d for k, d in depths.items() if not k.startswith(('norm', 'teacher'))}
    assert set(own.values()) == set(range(num_layers - 1))
    assert list(own.values()) == sorted(own.values())
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (num_layers - 1, num_layers)
    first = next(k for k in own if k.endswith('weight'))
    assert own[first] == 0
    for key in ('teacher.blocks.1.0.pointwise.0.weight', 'teacher.fpns.1.depthwise.0.weight'):
        if key in depths:
            assert depths[key] == depths['stages.1.blocks.0.norm1.weight']


@pytest.mark.parametrize('batch', [1, 2])
def test_views_keep_regular_strides(batch):
    """Also of a gradient, also for a batch of one: see the note in layers.py."""
    tokens = torch.randn(batch, 6 * 5, 7)
    strides = torch.empty(batch, 7, 6, 5, memory_format=torch.channels_last).stride()
    feature = to_map(tokens, (6, 5))
    assert feature.stride() == strides and feature.data_ptr() == tokens.data_ptr()
    again = to_tokens(feature)
    assert torch.equal(again, tokens) and again.data_ptr() == tokens.data_ptr()
    leaf = feature.detach().requires_grad_()
    doubled = leaf * 2
    doubled.register_hook(lambda grad: seen.append(grad.stride()))
    seen = []
    (to_tokens(doubled) * tokens).sum().backward()
    assert seen == [strides]


def test_build_twice_is_the_same(name):
    one, two = build(name), build(name)
    for (key, a), b in zip(one.state_dict().items(), two.state_dict().values()):
        assert torch.equal(a, b), key


def test_the_arch_given_is_not_touched(name):
    arch = dict(TINY[name]['arch'])
    build(name, arch=arch)
    assert arch == TINY[name]['arch']


# Why zeros around an image change a map far from the border too.
PADDING_CHANGES = {
    'PaCaViT': 'clusters gather from all positions',
    'GroupMixFormer': 'keys are normalized over, and summed over, all positions',
    'FCViT': 'the global context is a mean, and norms are taken, over all positions',
    'MSFViT': 'every position attends to every other',
}


def padding_change(model: nn.Module, padding: int = 160) -> float:
    """How much the upper left quarter of the coarsest map changes, relative to its magnitude."""
    torch.manual_seed(1)
    image = torch.randn(1, 3, 160, 160, dtype=torch.float64)
    padded = nn.functional.pad(image, (0, padding, 0, padding))
    with torch.no_grad():
        a, b = model.double().eval()(image)[-1], model(padded)[-1]
    h, w = a.shape[2] // 2, a.shape[3] // 2
    a, b = a[..., :h, :w], b[..., :h, :w]
    return ((a - b).norm() / a.norm()).item()


@pytest.mark.parametrize('family', PADDING_CHANGES)
def test_padding_changes_every_position(family):
    """A plain convolutional network changes near the border only."""
    assert padding_change(build(family)) > 1e-5


def test_padding_does_not_reach_across_a_small_convolutional_network():
    class Plain(nn.Sequential):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (super().forward(x),)

    assert padding_change(Plain(*(nn.Conv2d(3, 3, 3, 2, 1) for _ in range(3)))) < 1e-14


def test_paca_can_keep_padding_out_of_the_clusters():
    plain, masked = (padding_change(build('PaCaViT', mask_padding=m)) for m in (False, True))
    assert masked < 0.1 * plain
    x = torch.randn(2, 3, 64, 96)
    model = build('PaCaViT', mask_padding=True).eval()
    for a, b in zip(build('PaCaViT').eval()(x), model(x)):  # nothing to mask
        torch.testing.assert_close(a, b)
    x[0, :, 40:] = 0
    x[0, :, :, 50:] = 0
    valid = backbones.paca.find_content(x)
    assert valid[0].sum() == 40 * 50 and valid[1].all()
    assert backbones.paca.find_content(torch.zeros(1, 3, 8, 8)).all()
    clustering = model.stages[0].blocks[0].attn.clustering
    where = valid[:, ::4, ::4].flatten(1)[:, None]
    assignment = clustering(torch.randn(2, 16 * 24, 16), (16, 24), where)
    assert not assignment.masked_select(~where).any()
    torch.testing.assert_close(assignment.sum(-1), torch.ones(2, 9))


def test_masked_padding_of_one_image_does_not_touch_another():
    model = build('PaCaViT', mask_padding=True).eval()
    x = torch.randn(2, 3, 64, 64)
    alone = model(x[1:])
    x[0, :, 32:] = 0
    for a, b in zip(alone, model(x)):
        torch.testing.assert_close(a[0], b[1])


@pytest.mark.parametrize(
    'name, kwargs, message',
    [
        ('PaCaViT', dict(arch='huge'), "unknown PaCaViT arch 'huge'; known are tiny, small, base"),
        ('PaCaViT', dict(arch=dict(depths=(1, 1, 1, 1))), 'arch lacks'),
        ('PaCaViT', dict(clusters=(9, 9)), "'clusters': 2"),
        ('PaCaViT', dict(clustering='kmeans'), "unknown clustering 'kmeans'; known are conv, mlp"),
        ('PaCaViT', dict(clustering_interval=(0, 1)), "'clustering_interval': 2"),
        (
            'PaCaViT',
            dict(arch=dict(TINY['PaCaViT']['arch'], width=(1, 1, 1, 1))),
            r"unknown \['width'\]",
        ),
        ('PaCaViT-teacher', dict(clusters=(0, 9, 9, 9)), 'teacher needs clusters in every stage'),
        ('GroupMixFormer', dict(arch=dict(TINY['FCViT']['arch'])), 'not divisible by 5 segments'),
        ('FCViT', dict(num_heads=1), 'at least 2'),
        ('FCViT', dict(num_heads=6), 'not divisible by num_heads=6'),
        ('FCViT', dict(arch='b13'), "unknown FCViT arch 'b13'; known are tiny, b12, b24, b48"),
        ('MSFViT', dict(attention='mean'), "unknown attention 'mean'; known are orig, msf"),
        ('MSFViT', dict(groups=5), 'not divisible in 5 groups'),
        ('MSFViT', dict(group_order='random'), "unknown order 'random'"),
        ('MSFViT', dict(out_type='cls_token'), "unknown out_type 'cls_token'"),
    ],
)
def test_says_what_is_wrong(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(name, **kwargs)


def owners(model: nn.Module) -> list[tuple[int, int]]:
    """Which blocks, by stage and number, have a clustering of their own."""
    return [
        (i, j)
        for i, stage in enumerate(model.stages)
        for j, block in enumerate(stage.blocks)
        if block.attn.clustering is not None
    ]


def test_paca_clusters_once_per_stage_or_every_kth_block():
    assert owners(build('PaCaViT')) == [(0, 0), (1, 0), (2, 0)]
    assert build('PaCaViT').stages[3].blocks[0].attn.cluster_norm is None
    every = [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    assert owners(build('PaCaViT', clustering_interval=1)) == every
    assert owners(build('PaCaViT', clustering_interval=2)) == [(0, 0), (1, 0), (2, 0), (2, 2)]
    assert owners(build('PaCaViT', clustering_interval=(0, 1, 0, 0))) == [*every[:4]]
    assert owners(build('PaCaViT-teacher')) == []


def test_paca_assignment_is_a_distribution_over_positions():
    model = build('PaCaViT')
    clustering = model.stages[0].blocks[0].attn.clustering
    assignment = clustering(torch.randn(2, 12 * 17, 16), (12, 17))
    assert assignment.shape == (2, 9, 12 * 17)
    torch.testing.assert_close(assignment.sum(-1), torch.ones(2, 9))


def test_msf_is_a_step_of_mean_shift():
    """The attention is the Gaussian-weighted mean, with and without gradients."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 30, 8, dtype=torch.float64).unbind()
    distance = (q[..., :, None, :] - k[..., None, :, :]).square().sum(-1)
    want = (-distance / 2 / 8**0.5).softmax(-1) @ v
    torch.testing.assert_close(backbones.msf.mean_shift(q, k, v), want)
    with torch.no_grad():
        torch.testing.assert_close(backbones.msf.mean_shift(q, k, v), want)


def test_msf_keeps_its_precision_in_bfloat16():
    """|k|^2 / 2 may be large: its mean is taken out before it is rounded."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 6, 196, 64, dtype=torch.float64).mul(2).unbind()
    want = backbones.msf.mean_shift(q, k, v)
    rounded = [t.bfloat16() for t in (q, k, v)]
    exact = backbones.msf.mean_shift(*(t.double() for t in rounded))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            got = backbones.msf.mean_shift(*rounded).double()
        assert (got - exact).norm() < 0.02 * want.norm()


def test_msf_feeds_a_pyramid():
    """mmseg's neck makes strides 4, 8, 16, 32 of the stride-16 maps."""
    model = build('MSFViT').eval()
    neck = MODELS.build(
        dict(type='mmseg.Feature2Pyramid', embed_dim=32, norm_cfg=dict(type='BN'))
    ).eval()
    with torch.no_grad():
        maps = neck(model(torch.randn(1, 3, 64, 96)))
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
