"""What every backbone promises, whatever its architecture."""

import pytest
import torch
from mmengine.registry import MODELS

TINY = {
    'PaCaViT': dict(
        arch=dict(
            embed_dims=(16, 24, 32, 40),
            num_heads=(2, 2, 4, 4),
            depths=(1, 2, 3, 1),
            mlp_ratios=(4, 4, 2, 2),
        ),
        clusters=(9, 9, 9, 0),
        drop_path_rate=0.0,
    ),
}
DIMS = (16, 24, 32, 40)
SIZES = [(32, 32), (33, 47), (64, 96), (224, 224), (225, 311)]


def build(name: str, **kwargs) -> torch.nn.Module:
    torch.manual_seed(0)
    model = MODELS.build(dict(type=f'mmdense.{name}', **{**TINY[name], **kwargs}))
    model.init_weights()
    return model


@pytest.fixture(params=TINY)
def name(request):
    return request.param


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('batch', [1, 3])
def test_any_size(name, size, batch):
    maps = build(name).eval()(torch.randn(batch, 3, *size))
    height, width = size
    assert len(maps) == 4
    for feature, dim in zip(maps, DIMS):
        if dim == DIMS[0]:
            height, width = -(-height // 2), -(-width // 2)
        height, width = -(-height // 2), -(-width // 2)
        assert feature.shape == (batch, dim, height, width)
        assert feature.isfinite().all()


def test_maps_are_channels_last_and_layout_of_input_does_not_matter(name):
    model = build(name).eval()
    x = torch.randn(2, 3, 64, 96)
    maps, again = model(x), model(x.to(memory_format=torch.channels_last))
    for a, b in zip(maps, again):
        assert a.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(a, b)


def test_out_indices(name):
    x = torch.randn(1, 3, 64, 64)
    maps = build(name).eval()(x)
    wanted = [-1, 1]
    model = build(name, out_indices=wanted).eval()
    assert wanted == [-1, 1]
    last, second = model(x)
    assert torch.equal(last, maps[3]) and torch.equal(second, maps[1])
    with pytest.raises(ValueError, match='out_indices'):
        build(name, out_indices=(4,))


def test_frozen_stages(name):
    model = build(name, frozen_stages=2)
    model.train()
    frozen = [k for k, p in model.named_parameters() if not p.requires_grad]
    assert {k.split('.')[1] for k in frozen} == {'0', '1'}
    assert not model.stages[0].training and model.stages[2].training
    sum(m.square().mean() for m in model(torch.randn(1, 3, 64, 64))).backward()
    assert all((p.grad is None) == (k in frozen) for k, p in model.named_parameters())
    stem = [k for k, p in build(name, frozen_stages=0).named_parameters() if not p.requires_grad]
    assert stem and all(k.startswith('stages.0.downsample') for k in stem)
    with pytest.raises(ValueError, match='frozen_stages'):
        build(name, frozen_stages=5)


def test_checkpointing_changes_nothing(name):
    x = torch.randn(2, 3, 64, 64)
    outputs, grads = [], []
    for with_cp in (False, True):
        model = build(name, with_cp=with_cp).train()
        out = model(x)[-1]
        out.square().sum().backward()
        outputs.append(out)
        grads.append([p.grad for p in model.parameters()])
    assert torch.equal(*outputs)
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b)


def test_every_parameter_gets_a_gradient(name):
    model = build(name).double()
    sum(m.square().sum() for m in model(torch.randn(2, 3, 64, 96).double())).backward()
    without = [
        k
        for k, p in model.named_parameters()
        # a constant added to all keys shifts every logit alike: the true gradient is zero
        if (p.grad is None or not p.grad.any()) and not k.endswith('attn.k.bias')
    ]
    assert not without


def test_gradients_equal_finite_differences(name):
    """Directional derivative in float64, for the input and all parameters at once."""
    model = build(name).double().eval()
    x = torch.randn(1, 3, 33, 47, dtype=torch.float64)
    weights = [torch.randn_like(m) for m in model(x)]
    tensors = [x.requires_grad_(), *model.parameters()]
    directions = [torch.randn_like(t) for t in tensors]

    def loss() -> torch.Tensor:
        return sum((w * m).sum() for w, m in zip(weights, model(x)))

    grads = torch.autograd.grad(loss(), tensors)
    analytic = sum((g * d).sum() for g, d in zip(grads, directions)).item()
    step, values = 1e-6, []
    with torch.no_grad():
        for sign in (1, -2, 1):  # forward, back past the start, and home
            for t, d in zip(tensors, directions):
                t += sign * step * d
            values.append(loss().item())
    numeric = (values[0] - values[1]) / (2 * step)
    assert numeric == pytest.approx(analytic, rel=1e-5)


def test_bfloat16_autocast_is_near_float32(name):
    model = build(name).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        want = model(x)
        with torch.autocast('cpu', torch.bfloat16):
            got = model(x)
    for a, b in zip(want, got):
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
    blocks = sum(len(stage.blocks) for stage in model.stages)
    assert num_layers == blocks + 2
    assert set(depths.values()) == set(range(blocks + 1))
    assert list(depths.values()) == sorted(depths.values())
    assert depths['stages.0.downsample.proj.0.weight'] == 0
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (num_layers - 1, num_layers)


def test_build_twice_is_the_same(name):
    one, two = build(name), build(name)
    for (key, a), b in zip(one.state_dict().items(), two.state_dict().values()):
        assert torch.equal(a, b), key


def test_the_arch_given_is_not_touched(name):
    arch = dict(TINY[name]['arch'])
    build(name, arch=arch)
    assert arch == TINY[name]['arch']


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(arch='huge'), "unknown PaCaViT arch 'huge'; known are tiny, small, base"),
        (dict(arch=dict(depths=(1, 1, 1, 1))), 'arch lacks'),
        (dict(clusters=(9, 9)), "'clusters': 2"),
        (dict(clustering='kmeans'), "unknown clustering 'kmeans'; known are conv"),
    ],
)
def test_paca_says_what_is_wrong(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build('PaCaViT', **kwargs)


def test_paca_stage_shares_one_assignment():
    """Stage-wise clustering: only the first block of a stage has a clustering of its own."""
    model = build('PaCaViT')
    owners = [
        (i, j)
        for i, stage in enumerate(model.stages)
        for j, block in enumerate(stage.blocks)
        if block.attn.clustering is not None
    ]
    assert owners == [(0, 0), (1, 0), (2, 0)]
    assert model.stages[3].blocks[0].attn.cluster_norm is None


def test_paca_assignment_is_a_distribution_over_positions():
    model = build('PaCaViT')
    clustering = model.stages[0].blocks[0].attn.clustering
    assignment = clustering(torch.randn(2, 12 * 17, 16), (12, 17))
    assert assignment.shape == (2, 9, 12 * 17)
    torch.testing.assert_close(assignment.sum(-1), torch.ones(2, 9))
