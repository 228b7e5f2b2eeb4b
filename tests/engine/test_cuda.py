"""What only a GPU can show; where there is none, all of it is left out."""

import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from helpers import DIGIT_CONFIGS, TINY, build, load_digits
from mmcv.ops import RoIAlign, batched_nms, sigmoid_focal_loss, soft_nms
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from toy_run import check_equal, outcome, run

from mmdense.backbones import depthwise_triton
from mmdense.backbones.fused import chain
from mmdense.serialization.checkpoint import load_file

ROOT = Path(__file__).resolve().parents[2]
HALVES = [torch.float16, torch.bfloat16]
# Of a masked attention; flash attention takes no mask.
KERNELS = {
    'default': [SDPBackend.MATH, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION],
    'efficient': [SDPBackend.EFFICIENT_ATTENTION],
    'cudnn': [SDPBackend.CUDNN_ATTENTION],
    'math': [SDPBackend.MATH],
}

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no CUDA device')


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 as it says: not in the tensor cores' 19 bits."""
    monkeypatch.setattr(torch.backends.cuda.matmul, 'allow_tf32', False)
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


def near(got: torch.Tensor, want: torch.Tensor, share: float) -> bool:
    """Whether two tensors differ by at most a share of the largest value."""
    difference = (got.cpu().double() - want.cpu().double()).abs().max()
    return bool(difference <= share * want.abs().max())


def maps_and_gradients(
    model: torch.nn.Module, x: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """In training, of the sum of squares of all maps."""
    maps = model(x)
    wide = torch.promote_types(maps[0].dtype, torch.float32)
    sum(m.to(wide).square().mean() for m in maps).backward()
    return list(maps), [p.grad for p in model.parameters()]


@pytest.mark.parametrize('dtype, share', [(torch.float64, 1e-6), (torch.float32, 1e-4)], ids=str)
@pytest.mark.parametrize('name', TINY)
def test_equal_to_the_cpu(name, dtype, share):
    """Maps without gradients, maps and gradients in training.

    In float64 too, PyTorch's hardswish on a GPU has constants of float32, and MSF its positions.
    """
    model, x = build(name).to(dtype), torch.randn(2, 3, 97, 130, dtype=dtype)
    other = deepcopy(model).cuda()
    with torch.no_grad():
        for a, b in zip(model.eval()(x), other.eval()(x.cuda())):
            assert near(b, a, share)
    wanted = maps_and_gradients(model.train(), x)
    for want, found in zip(wanted, maps_and_gradients(other.train(), x.cuda())):
        scale = max(t.abs().max() for t in want if t is not None)
        for a, b in zip(want, found):
            if a is not None and a.abs().max() > 1e-3 * scale:  # others are sums that cancel out
                assert near(b, a, 20 * share)
            elif a is not None:
                assert (b.cpu() - a).abs().max() < share * scale


@pytest.mark.parametrize('dtype', HALVES, ids=str)
@pytest.mark.parametrize('name', TINY)
def test_autocast(name, dtype):
    """Near float32 in value, finite in training."""
    model = build(name).cuda()
    x = torch.randn(2, 3, 96, 128, device='cuda')
    with torch.no_grad():
        want = model.eval()(x)
        with torch.autocast('cuda', dtype):
            got = model(x)
    for a, b in zip(want, got):
        assert (a - b.float()).abs().mean() < 0.05 * a.abs().mean()
    with torch.autocast('cuda', dtype):
        maps, gradients = maps_and_gradients(model.train(), x)
    assert all(t.isfinite().all() for t in [*maps, *gradients] if t is not None)


@pytest.mark.parametrize('name', TINY)
def test_compiled(name):
    model = build(name).cuda().eval()
    x = torch.randn(2, 3, 96, 128, device='cuda')
    with torch.no_grad():
        want = model(x)
        model.compile(dynamic=False)
        for a, b in zip(want, model(x)):
            assert near(b, a, 1e-4)


@pytest.mark.parametrize('kernels', KERNELS)
@pytest.mark.parametrize('dtype', HALVES, ids=str)
@pytest.mark.parametrize('size', [(96, 128), (100, 132)], ids=str)
def test_masked_attention_in_half_precision(size, dtype, kernels):
    """Plain attention that leaves padding out is near float64, and sees nothing of the padding."""
    arch = dict(embed_dims=[32] * 4, num_heads=[2] * 4, depths=[1] * 4, mlp_ratios=[2] * 4)
    model = build('PaCaViT', arch=arch, clusters=[0] * 4, mask_padding=True).eval()
    x = torch.randn(2, 3, *size)
    x[0, :, 60:] = 0
    x[0, :, :, 90:] = 0
    want = deepcopy(model).double()(x.double())
    model.cuda()
    with torch.no_grad(), sdpa_kernel(KERNELS[kernels]), torch.autocast('cuda', dtype):
        try:
            got = model(x.cuda())
        except RuntimeError as error:
            if 'No available kernel' in str(error):
                pytest.skip('this GPU has no such kernel')
            raise
    for a, b in zip(want, got):
        assert (a.cuda() - b.double()).abs().mean() < 0.02 * a.abs().mean()
        assert (a.cuda() - b.double()).abs().max() < 0.1 * a.abs().max()


@pytest.mark.parametrize('dtype, share', [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
@pytest.mark.parametrize(
    'case', [(3, 70, 13, 20, 11), (2, 3, 9, 5, 9), (1, 129, 33, 17, 13)], ids=str
)
def test_large_windows(case, dtype, share):
    """Our kernels beside PyTorch's in float64; the layout and strides of what comes in are free."""
    batch, channels, height, width, window = case
    conv = nn.Conv2d(channels, channels, window, padding=window // 2, groups=channels).cuda()
    x = torch.randn(batch, width, channels, height, device='cuda').permute(0, 2, 3, 1)
    assert depthwise_triton.takes(conv, x)
    conv, x = conv.to(dtype), x.to(dtype).requires_grad_()
    y = chain(x, conv)
    assert 'DepthwiseConv' in type(y.grad_fn).__name__
    assert y.is_contiguous(memory_format=torch.channels_last)
    grad = torch.randn_like(y)
    found = torch.autograd.grad(y, (x, *conv.parameters()), grad)
    conv, x = conv.double(), x.detach().double().requires_grad_()
    want = conv(x)
    assert near(y, want, share)
    for a, b in zip(found, torch.autograd.grad(want, (x, *conv.parameters()), grad.double())):
        assert near(a, b, share)


def test_second_derivatives_of_large_windows():
    conv = nn.Conv2d(2, 2, 9, padding=4, groups=2).cuda()
    x = torch.randn(1, 2, 6, 5, device='cuda', requires_grad=True)
    squares = []
    for y in (chain(x, conv), conv(x)):
        (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        squares.append(torch.autograd.grad(grad.square().sum(), (x, conv.weight)))
    for a, b in zip(*squares):
        assert near(a, b, 1e-4)


def test_large_windows_beside_the_plain_form(monkeypatch):
    """In autocast, compiled, and under torch's checkpointing; the same without Triton."""
    model = build('FCViT', kernel_size=11, drop_path_rate=0.0).cuda().eval()
    x = torch.randn(2, 3, 64, 96, device='cuda')
    with monkeypatch.context() as patched:
        patched.setattr(depthwise_triton, 'HAS_TRITON', False)
        want = maps_and_gradients(model, x)
    model.zero_grad()
    for with_cp, compiled in ((False, False), (True, False), (False, True)):
        model.with_cp = with_cp
        run_model = torch.compile(model, dynamic=False) if compiled else model
        found = [list(run_model(x)), None]
        sum(m.square().mean() for m in found[0]).backward()
        found[1] = [p.grad for p in model.parameters()]
        for wanted, got in zip(want, found):
            scale = max(t.abs().max() for t in wanted if t is not None)
            for a, b in zip(wanted, got):
                assert a is None or (a - b).abs().max() < 1e-4 * scale
        model.zero_grad()


class TestOperators:
    """Those that stand in for a compiled mmcv's: as on the CPU, where they are held to mmcv's."""

    def make_rois(self) -> torch.Tensor:
        corner, size = torch.rand(40, 2) * 150 - 10, torch.rand(40, 2) * 60
        return torch.cat([torch.arange(40)[:, None] % 2, corner, corner + size], 1)

    @pytest.mark.parametrize('dtype', [None, *HALVES], ids=str)
    @pytest.mark.parametrize('ratio', [0, 2])
    def test_roi_align(self, ratio, dtype):
        feature, rois = torch.randn(2, 16, 20, 24), self.make_rois()
        if dtype is not None:
            feature, rois = feature.to(dtype).float(), rois.to(dtype).float()
        pool, results = RoIAlign(7, 0.125, ratio), []
        for device in ('cpu', 'cuda'):
            x = feature.to(device, copy=True).requires_grad_()
            y = x.to(dtype) if dtype is not None and device == 'cuda' else x
            out = pool(y, rois.to(device, y.dtype) if y is not x else rois.to(device))
            out.float().square().mean().backward()
            results.append((out, x.grad))
        share = 1e-5 if dtype is None else 0.05
        for want, got in zip(*results):
            assert near(got.float(), want, share)

    @pytest.mark.parametrize('method', ['nms', 'soft_nms'])
    def test_suppression(self, method):
        boxes, scores = self.make_rois()[:, 1:], torch.rand(40)
        labels = torch.arange(40) % 3
        options = dict(type=method, iou_threshold=0.5)
        want = batched_nms(boxes, scores, labels, dict(options))
        got = batched_nms(boxes.cuda(), scores.cuda(), labels.cuda(), dict(options))
        for a, b in zip(want, got):
            assert b.is_cuda
            torch.testing.assert_close(b.cpu(), a)
        kept = soft_nms(boxes.cuda(), scores.cuda())[1]
        assert torch.equal(kept.cpu(), soft_nms(boxes, scores)[1])

    def test_focal_loss(self):
        logits, target = torch.randn(30, 4), torch.randint(5, (30,))
        results = []
        for device in ('cpu', 'cuda'):
            x = logits.to(device, copy=True).requires_grad_()
            loss = sigmoid_focal_loss(x, target.to(device), 2.0, 0.25, None, 'mean')
            loss.backward()
            results.append((loss, x.grad))
        for want, got in zip(*results):
            assert near(got, want, 1e-5)


@pytest.mark.parametrize('scope', DIGIT_CONFIGS)
def test_resumes(scope, place, monkeypatch):
    """Cut in the second epoch and resumed: equal numbers to the last bit where the operators on
    the way have an order, and near ones for the detector, whose RoIAlign's gradient has none."""
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    wanted = None
    for cut in (None, dict(at=4)):
        cfg = load_digits(scope, place / f'cut_{bool(cut)}')
        cfg.randomness = dict(seed=0, deterministic=scope == 'mmpretrain')
        cfg.env_cfg.cudnn_benchmark = False
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.dtype = 'float16'
        if cut:
            run(cfg, cut=cut)
            found = outcome(run(cfg, resume=Path(cfg.work_dir, 'cut.pth')))
        else:
            wanted = outcome(run(cfg))
    torch.use_deterministic_algorithms(False)
    if scope == 'mmpretrain':
        check_equal({k: v.cpu() for k, v in found.items()}, {k: v.cpu() for k, v in wanted.items()})
    for key, value in wanted.items():
        if key.startswith('model ') and value.is_floating_point():
            difference = (found[key] - value).abs().max()
            assert difference <= 0.05 * max(value.abs().max(), 0.01), key


@pytest.mark.parametrize('amp', [[], ['--amp']], ids=['float32', 'amp'])
def test_one_rank_of_nccl(amp, place):
    """tools/dist_train.sh with one process: trained, saved, resumed, tested."""
    config = DIGIT_CONFIGS['mmdet']
    options = ['--cfg-options', 'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0']
    options += ['train_dataloader.persistent_workers=False', 'train_dataloader.batch_size=2']
    options += ['val_dataloader.persistent_workers=False', 'model.backbone.init_cfg=None']
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])

    def launch(tool: str, *args: object) -> str:
        done = subprocess.run(
            ['bash', ROOT / 'tools' / tool, config, '1', *map(str, args)],
            env={**os.environ, 'PATH': path},
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    folder = place / 'run'
    launch('dist_train.sh', '--work-dir', folder, *amp, *options, 'train_cfg.max_epochs=1')
    options.append('train_cfg.max_epochs=2')
    said = launch('dist_train.sh', '--work-dir', folder, '--resume', *amp, *options)
    assert 'epoch_1.pth' in said
    state = load_file(folder / 'epoch_2.pth')['state_dict']
    assert all(t.isfinite().all() for t in state.values() if t.is_floating_point())
    assert not any(key.startswith('module.') for key in state)
