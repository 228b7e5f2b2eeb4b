"""What every backbone promises, whatever its architecture.

Nothing here knows one: a new family passes through all of it with its tiny networks.
"""

from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from helpers import TINY, build, check_gradients, make_shallow
from mmengine.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdense.backbones.base import BaseBackbone
from mmdense.families import FAMILIES

NAMED = [
    pytest.param(family, arch, id=f'{family.name}-{arch}')
    for family in FAMILIES
    for arch in family.backbone.arch_zoo
]
SIZES = [(32, 32), (33, 47), (64, 96), (224, 224), (225, 311)]
LARGE = (800, 1333)


@pytest.fixture(params=TINY)
def name(request):
    return request.param


def blocks_of(model: BaseBackbone) -> list[nn.Module]:
    """The blocks of the sequence, which are its modules where these have none of their own."""
    sequence = model.get_submodule(model.sequence)
    return [block for module in sequence for block in getattr(module, 'blocks', (module,))]


def below(model: BaseBackbone, key: str, number: int) -> bool:
    """Whether a parameter or buffer makes the tokens, or is of the first modules behind that."""
    places = [model.first, *(f'{model.sequence}.{i}' for i in range(number))]
    return key.startswith(tuple(f'{place}.' for place in places))


def check_maps(
    model: BaseBackbone, maps: tuple[torch.Tensor, ...], batch: int, size: tuple[int, int]
) -> None:
    """One map per index, of ceil(side / stride) and the stated channels; finite, channels_last."""
    height, width = size
    assert len(maps) == len(model.out_indices)
    for i, feature in zip(model.out_indices, maps):
        info = model.feature_info[i]
        stride = info['reduction']
        assert feature.shape == (batch, info['num_chs'], -(-height // stride), -(-width // stride))
        if not feature.is_meta:  # where there are only shapes
            assert feature.is_contiguous(memory_format=torch.channels_last)
            assert feature.isfinite().all()


@pytest.mark.parametrize('size', [*SIZES, LARGE], ids=str)
@pytest.mark.parametrize('batch', [1, 3])
def test_any_size(name, size, batch):
    if size == LARGE and batch == 3:
        pytest.skip('one large image is enough')
    model = build(name).eval()
    with torch.no_grad():
        check_maps(model, model(torch.randn(batch, 3, *size)), batch, size)


@pytest.mark.slow
@pytest.mark.parametrize('family, arch', NAMED)
def test_any_size_of_every_published_arch(family, arch):
    model = MODELS.build(dict(type=family.type, arch=arch)).eval()
    smallest = arch == next(iter(family.backbone.arch_zoo))
    batches = [(3, SIZES[0]), (1, SIZES[1]), (3, SIZES[2]), (1, SIZES[3]), (1, SIZES[4])]
    for batch, size in [*batches, (1, LARGE)] if smallest else batches:
        with torch.no_grad():
            check_maps(model, model(torch.randn(batch, 3, *size)), batch, size)


def test_layout_of_the_input_does_not_matter(name):
    model = build(name).eval()
    x = torch.randn(2, 3, 64, 96)
    for a, b in zip(model(x), model(x.to(memory_format=torch.channels_last))):
        assert torch.equal(a, b)


def test_out_indices(name):
    number = len(build(name).feature_info)
    x = torch.randn(1, 3, 64, 64)
    maps = build(name, out_indices=range(number)).eval()(x)
    wanted = [-1, 1]
    model = build(name, out_indices=wanted).eval()
    assert wanted == [-1, 1]
    last, second = model(x)
    torch.testing.assert_close(last, maps[-1])
    torch.testing.assert_close(second, maps[1])
    (one,) = build(name, out_indices=-1).eval()(x)
    torch.testing.assert_close(one, maps[-1])
    for index in (number, -number - 1):
        with pytest.raises(ValueError, match='out_indices'):
            build(name, out_indices=(index,))


def test_frozen_stages(name):
    """k freezes what makes the tokens, the first k modules behind it, and what serves only them."""
    for frozen_stages in (0, 2):
        model = build(name, frozen_stages=frozen_stages).train()
        frozen = {k for k, p in model.named_parameters() if not p.requires_grad}
        wanted = {k for k, _ in model.named_parameters() if below(model, k, frozen_stages)}
        assert wanted and wanted <= frozen
        assert not any(k.startswith(f'{model.sequence}.') for k in frozen - wanted)
        assert frozen_stages or frozen == wanted
        before = {k: b.clone() for k, b in model.named_buffers()}
        sum(m.square().mean() for m in model(torch.randn(2, 3, 64, 64))).backward()
        assert all((p.grad is None) == (k in frozen) for k, p in model.named_parameters())
        for key, buffer in model.named_buffers():  # running statistics of frozen batch norms
            if below(model, key, frozen_stages):
                assert torch.equal(buffer, before[key]), key
    for wrong in (len(model.feature_info) + 1, -2):
        with pytest.raises(ValueError, match='frozen_stages'):
            build(name, frozen_stages=wrong)


def test_norm_eval(name):
    """Batch norms, if there are any, do not train; all else does."""
    for norm_eval in (False, True):
        model = build(name, norm_eval=norm_eval).train()
        for module in model.modules():
            assert module.training != (norm_eval and isinstance(module, _BatchNorm))


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


def test_every_parameter_gets_a_gradient(name):
    """Or DistributedDataParallel would wait for it. It is zero at most for a bias without effect:
    a constant added to what a softmax normalizes changes nothing."""
    model = build(name).double().eval()
    x = torch.randn(2, 3, 64, 96).double()
    before = model(x)
    sum(m.square().sum() for m in before).backward()
    for key, p in model.named_parameters():
        assert p.grad is not None, key
        if not p.grad.any():
            assert key.endswith('bias'), key
            with torch.no_grad():
                p += 1
                for a, b in zip(before, model(x)):
                    torch.testing.assert_close(a, b)
                p -= 1


def test_gradients_equal_finite_differences(name):
    """In float64, for the image and every parameter."""
    model = build(name, **make_shallow(name)).double().eval()
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


def test_compiles_without_graph_breaks(name):
    torch._dynamo.reset()  # of one method, as all backbones share it, only so many forms are kept
    model = build(name, **make_shallow(name)).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend='aot_eager')(x)
        for a, b in zip(model(x), compiled):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_layer_depths(name):
    """Each block learns with one id, rising from what makes the tokens; heads get the last."""
    model = build(name)
    depths = {}
    for key, _ in model.named_parameters():
        depths[key], num_layers = model.get_layer_depth(f'backbone.{key}', 'backbone.')
    blocks = blocks_of(model)
    assert num_layers == len(blocks) + 2
    assert all((d == 0) == below(model, k, 0) and d < num_layers for k, d in depths.items())
    names = {module: module_name for module_name, module in model.named_modules()}
    for number, block in enumerate(blocks, start=1):
        inside = {d for k, d in depths.items() if k.startswith(f'{names[block]}.')}
        assert inside == {number}
    # What lies between blocks learns with those beside it: depths rise along the sequence.
    behind = {k: d for k, d in depths.items() if not below(model, k, 0)}
    parts = [
        [d for k, d in behind.items() if k.startswith(f'{model.sequence}.{i}.')]
        for i in range(len(model.get_submodule(model.sequence)))
    ]
    assert all(max(a) < min(b) for a, b in pairwise(parts))
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (num_layers - 1, num_layers)


def test_build_twice_is_the_same(name):
    one, two = build(name), build(name)
    for (key, a), b in zip(one.state_dict().items(), two.state_dict().values()):
        assert torch.equal(a, b), key


def test_the_arch_given_is_not_touched(name):
    arch = deepcopy(TINY[name]['arch'])
    build(name, arch=arch)
    assert arch == TINY[name]['arch']


@pytest.mark.parametrize('family', FAMILIES, ids=lambda family: family.name)
def test_an_arch_that_does_not_exist(family):
    known = ', '.join(family.backbone.arch_zoo)
    message = f"unknown {family.backbone.__name__} arch 'huge'; known are {known}"
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type=family.type, arch='huge'))
    row = next(iter(family.backbone.arch_zoo.values()))
    for key in row:
        arch = {k: v for k, v in row.items() if k != key}
        with pytest.raises(ValueError, match=rf"arch lacks \['{key}'\]"):
            MODELS.build(dict(type=family.type, arch=arch))
    with pytest.raises(ValueError, match=r"arch has unknown \['colour'\]"):
        MODELS.build(dict(type=family.type, arch=dict(row, colour=1)))
