"""One backbone in the libraries of others: their models train with it, and get its maps.

The models are those of docs/hosts.md. ``make test-hosts`` runs all of this; where a library is not
installed, its test is skipped.
"""

import importlib.util
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch
from helpers import ROOT
from mmengine.registry import MODELS
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

NEEDED = {
    'Transformers': 'transformers',
    'Segmentation Models PyTorch': 'segmentation_models_pytorch',
}
NUM_CLASSES = 4
SIDE = 64
pytestmark = pytest.mark.slow


def make_model(host: str) -> tuple[nn.Module, dict]:
    """The model of a host's section in docs/hosts.md, and all that its example defines."""
    if host in NEEDED:
        pytest.importorskip(NEEDED[host], reason=f'{NEEDED[host]} is not installed')
    text = (ROOT / 'docs' / 'hosts.md').read_text()
    section = re.search(rf'\n## {host}\n(.*?)(?=\n## |\Z)', text, re.DOTALL)[1]
    defined: dict = {}
    torch.manual_seed(0)
    exec(re.search(r'```python\n(.*?)```', section, re.DOTALL)[1], defined)
    return defined['model'], defined


def find_backbone(model: nn.Module) -> nn.Module:
    """This package's part of another's model."""
    (found,) = [
        m
        for m in model.modules()
        if type(m).__module__ == 'mmdense.backbones.paca' and type(m).__name__ == 'PaCaViT'
    ]
    return found


def check_training(model: nn.Module, step: Callable[[], Tensor]) -> None:
    """The loss falls, all of the backbone learns, and gives what it gives elsewhere."""
    backbone = find_backbone(model)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    losses = []
    for _ in range(4):
        torch.manual_seed(0)  # the same paths are dropped, the same points drawn
        losses.append(step().item())
    assert losses[-1] < losses[0], losses
    after = dict(backbone.named_parameters())
    assert not [key for key, value in after.items() if torch.equal(value, before[key])]


def check_maps(model: nn.Module, run: Callable[[], object]) -> list[Tensor]:
    """What the backbone takes and gives while its host runs, is what it does alone."""
    inside = find_backbone(model.eval())
    alone = MODELS.build(dict(type='mmdense.PaCaViT', arch='tiny', out_indices=(0, 1, 2, 3))).eval()
    alone.load_state_dict(inside.state_dict(), strict=True)
    calls = []
    handle = inside.register_forward_hook(lambda module, args, out: calls.append((args[0], out)))
    with torch.no_grad():
        run()
        handle.remove()
        (image, maps), *_ = calls
        wanted = alone(image)
    assert [m.shape[1] for m in maps] == [96, 192, 320, 384]
    for a, b in zip(maps, wanted, strict=True):
        assert torch.equal(a, b)
    return list(maps)


def optimize(
    model: nn.Module, compute: Callable[[], Tensor], lr: float = 1e-4
) -> Callable[[], Tensor]:
    """A step of a training by PyTorch's AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)

    def step() -> Tensor:
        loss = compute()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, SIDE, SIDE)


@pytest.fixture
def labels() -> Tensor:
    """Halves of two classes."""
    labels = torch.zeros(2, SIDE, SIDE, dtype=torch.long)
    labels[:, :, SIDE // 2 :] = NUM_CLASSES - 1
    return labels


def test_timm(images):
    model, _ = make_model('timm')
    classes = torch.tensor([0, 1])
    check_training(
        model.train(), optimize(model, lambda: nn.functional.cross_entropy(model(images), classes))
    )
    inside = find_backbone(model.eval())
    alone = MODELS.build(dict(type='mmdense.PaCaViT', arch='tiny', out_indices=(0, 1, 2, 3))).eval()
    alone.load_state_dict(inside.state_dict(), strict=True)
    with torch.no_grad():
        _, maps = model.forward_intermediates(images)
        for a, b in zip(maps, alone(images), strict=True):
            assert torch.equal(a, b)


def test_pytorch(images, labels):
    model, defined = make_model('PyTorch')
    check_training(model.train(), lambda: defined['train_step'](images, labels))
    check_maps(model, lambda: defined['backbone'](images))


def test_torchvision(images):
    model, _ = make_model('torchvision')
    model.transform.min_size, model.transform.max_size = (SIDE,), SIDE
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
    mask[:, 8:40, 8:40] = 1
    target = dict(boxes=torch.tensor([[8.0, 8, 40, 40]]), labels=torch.tensor([1]), masks=mask)
    pictures = list(images.sigmoid())
    step = optimize(model, lambda: sum(model(pictures, [target, target]).values()))
    check_training(model.train(), step)
    check_maps(model, lambda: model(pictures))


def test_transformers(images, labels):
    model, _ = make_model('Transformers')
    step = optimize(model, lambda: model(pixel_values=images, labels=labels).loss)
    check_training(model.train(), step)
    maps = check_maps(model, lambda: model(pixel_values=images))
    with torch.no_grad():
        for a, b in zip(model.backbone(images).feature_maps, maps, strict=True):
            assert torch.equal(a, b)


def test_mask2former_of_transformers(images):
    _, defined = make_model('Transformers')
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    small = ('feature_size', 'mask_feature_size', 'hidden_dim', 'encoder_feedforward_dim')
    config = Mask2FormerConfig(
        backbone_config=defined['backbone'],
        **dict.fromkeys((*small, 'dim_feedforward'), 32),
        **dict(encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=5),
        train_num_points=64,
        num_labels=NUM_CLASSES,
    )
    model = Mask2FormerForUniversalSegmentation(config)
    masks = [torch.zeros(1, SIDE, SIDE)] * 2
    masks[0][:, :, 32:] = 1
    batch = dict(pixel_values=images, mask_labels=masks, class_labels=[torch.tensor([1])] * 2)
    check_training(model.train(), optimize(model, lambda: model(**batch).loss, lr=1e-3))
    check_maps(model, lambda: model(pixel_values=images))


def test_segmentation_models_pytorch(images, labels):
    model, _ = make_model('Segmentation Models PyTorch')
    step = optimize(model, lambda: nn.functional.cross_entropy(model(images), labels))
    check_training(model.train(), step)
    maps = check_maps(model, lambda: model(images))
    with torch.no_grad():
        found = [feature for feature in model.encoder(images)[1:] if feature.shape[1]]
    for a, b in zip(found, maps, strict=True):
        assert torch.equal(a, b)


class PyramidOfShapes(nn.Module):
    """As detectron2's FPN: layers for what ``output_shape`` says, and none for what it does not."""

    def __init__(self, bottom_up: nn.Module) -> None:
        super().__init__()
        self.bottom_up = bottom_up
        shapes = bottom_up.output_shape()
        strides = [shape.stride for shape in shapes.values()]
        assert strides == sorted(set(strides))
        self.pyramid = FeaturePyramidNetwork([shape.channels for shape in shapes.values()], 16)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.pyramid(self.bottom_up(x))
        for name, shape in self.bottom_up.output_shape().items():
            assert maps[name].shape[2:] == (x.shape[2] // shape.stride, x.shape[3] // shape.stride)
        return maps


def test_detectron2(images):
    bottom_up, _ = make_model('Detectron2')
    shapes = {name: tuple(shape) for name, shape in bottom_up.output_shape().items()}
    assert shapes == dict(res2=(96, 4), res3=(192, 8), res4=(320, 16), res5=(384, 32))
    model = PyramidOfShapes(bottom_up)
    step = optimize(model, lambda: sum((m - 1).square().mean() for m in model(images).values()))
    check_training(model.train(), step)
    check_maps(model, lambda: model(images))


# timm's own tests of models, with the arguments that follow the model's name.
TIMMS_TESTS = {
    'test_model_forward': (1,),
    'test_model_backward': (2,),
    'test_model_default_cfgs': (1, 'meta'),  # and group_matcher, no_weight_decay, reset_classifier
    'test_model_forward_features': (1,),
    'test_model_forward_intermediates': (1,),
    'test_model_forward_intermediates_features': (1,),
    'test_forward_intermediates_stop_early_final_norm': ({},),
    'test_prune_intermediate_layers_contract': (),
    'test_prune_intermediate_layers_params_used': (),
    'test_features_only_grad_checkpointing_backward': (),
    'test_reset_classifier_keeps_pool': (),
    'test_head_hidden_size': ({},),
    'test_model_forward_torchscript': (1,),
    'test_model_forward_fx': (1,),
}
NOT_SUPPORTED = {
    'test_model_forward_torchscript': 'TorchScript takes no layers that choose as they run',
    'test_model_forward_fx': 'FX takes no layers that choose as they run',
    ('test_reset_classifier_keeps_pool', 'msf_small'): 'it pools before its norm: the mean alone',
}


@pytest.fixture(scope='module')
def timms(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> ModuleType:
    """tests/test_models.py of the installed timm, which only its source distribution has."""
    folder = tmp_path_factory.mktemp('timm')
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'download', '--quiet']
    command += ['--no-deps', '--no-binary', 'timm', f'timm=={timm.__version__}', '--dest', folder]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    except subprocess.SubprocessError as error:
        pytest.skip(f"timm's source distribution cannot be fetched: {error}")
    (archive,) = folder.glob('timm-*.tar.gz')
    with tarfile.open(archive) as content:
        content.extractall(folder, filter='data')
    path = Path(folder, f'timm-{timm.__version__}', 'tests', 'test_models.py')
    for mark in set(re.findall(r'@pytest\.mark\.(\w+)', path.read_text())):
        pytestconfig.addinivalue_line('markers', f"{mark}: timm's")
    spec = importlib.util.spec_from_file_location('timms_test_models', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('name', ['paca_tiny', 'groupmixformer_miny', 'fcvit_tiny', 'msf_small'])
@pytest.mark.parametrize('test', TIMMS_TESTS)
def test_timms_own(test, name, timms):
    reason = NOT_SUPPORTED.get(test) or NOT_SUPPORTED.get((test, name))
    if reason:
        pytest.skip(reason)
    getattr(timms, test)(name, *TIMMS_TESTS[test])
