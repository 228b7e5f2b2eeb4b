"""PaCaSegHead inside mmseg's ordinary segmentor, with any backbone and norm."""

import pytest
import torch
from helpers import PLAINEST, TINY, build, build_in, check_gradients
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

NUM_CLASSES = 5
SIZE = (64, 96)
DIMS = (16, 24, 32, 40)


def build_head(in_channels=DIMS, **kwargs) -> nn.Module:
    torch.manual_seed(0)
    cfg = dict(
        type='mmdense.PaCaSegHead',
        in_channels=in_channels,
        channels=16,
        num_classes=NUM_CLASSES,
        norm_cfg=dict(type='BN'),
        dropout_ratio=0.0,
    )
    head = MODELS.build({**cfg, **kwargs})
    head.init_weights()
    return head


def make_maps(batch: int, dims=DIMS, dtype=torch.float32) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [
        torch.randn(batch, dim, 16 // 2**i, 24 // 2**i, dtype=dtype) for i, dim in enumerate(dims)
    ]


def make_samples(batch: int) -> list[SegDataSample]:
    torch.manual_seed(2)
    samples = []
    for _ in range(batch):
        label = torch.randint(NUM_CLASSES, (1, *SIZE))
        label[:, :8] = 255
        meta = dict(img_shape=SIZE, ori_shape=SIZE, pad_shape=SIZE)
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=meta))
    return samples


def build_segmentor(name: str) -> nn.Module:
    backbone = build(name)
    head = dict(
        type='mmdense.PaCaSegHead',
        in_channels=[backbone.feature_info[i]['num_chs'] for i in backbone.out_indices],
        channels=16,
        num_classes=NUM_CLASSES,
        norm_cfg=dict(type='BN'),
    )
    cfg = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size=SIZE),
        backbone=dict(TINY[name]),
        decode_head=head,
        test_cfg=ConfigDict(mode='whole'),
    )
    return build_in('mmseg', cfg).train()


@pytest.mark.parametrize('name', PLAINEST)
def test_trains_and_predicts_in_the_ordinary_segmentor(name):
    """Also where all maps have one stride: the head resizes to the first."""
    model = build_segmentor(name)
    model.init_weights()
    data = dict(inputs=[torch.randint(255, (3, *SIZE))] * 2, data_samples=make_samples(2))
    data = model.data_preprocessor(data, training=True)
    losses = model(**data, mode='loss')
    assert set(losses) == {
        'decode.loss_ce',
        'decode.acc_seg',
        'decode.loss_cluster',
        'decode.acc_cluster',
    }
    total, _ = model.parse_losses(losses)
    parts = losses['decode.loss_ce'] + losses['decode.loss_cluster']
    torch.testing.assert_close(total, parts)
    total.backward()
    assert all(p.grad is not None for p in model.decode_head.parameters())
    model.eval()
    with torch.no_grad():
        results = model.predict(data['inputs'], data['data_samples'])
    assert results[0].pred_sem_seg.data.shape == (1, *SIZE)
    assert results[0].seg_logits.data.shape == (NUM_CLASSES, *SIZE)


@pytest.mark.parametrize(
    'norm_cfg',
    [
        None,
        dict(type='BN'),
        dict(type='SyncBN'),
        dict(type='GN', num_groups=4),
        dict(type='IN'),
        dict(type='mmpretrain.LN2d'),
    ],
    ids=str,
)
def test_any_norm(norm_cfg):
    head = build_head(norm_cfg=norm_cfg)
    if norm_cfg and norm_cfg['type'] == 'SyncBN':
        head.eval()  # trains on GPUs only
    losses = head.loss(make_maps(2), make_samples(2), {})
    (losses['loss_ce'] + losses['loss_cluster']).backward()
    for key, p in head.named_parameters():
        assert p.grad is not None, key


def test_three_maps_and_other_losses():
    head = build_head(
        in_channels=DIMS[1:],
        in_index=(1, 2, 3),
        loss_decode=[
            dict(type='CrossEntropyLoss'),
            dict(type='DiceLoss', loss_name='loss_dice'),
        ],
    )
    losses = head.loss(make_maps(2), make_samples(2), {})
    assert {'loss_ce', 'loss_dice', 'loss_cluster'} <= losses.keys()
    assert head(make_maps(2)).shape == (2, NUM_CLASSES, 8, 12)


def test_losses_need_names_of_their_own():
    with pytest.raises(ValueError, match="both called 'loss_ce'"):
        build_head(loss_cluster=dict(type='CrossEntropyLoss', loss_weight=0.2))


def test_prediction_is_the_class_logits():
    """Prediction returns the class logits only."""
    head = build_head().eval()
    logits, clusters = head.get_logits(make_maps(1))
    assert torch.equal(head(make_maps(1)), logits)
    assert logits.shape == clusters.shape == (1, NUM_CLASSES, 16, 24)


@pytest.mark.parametrize('align_corners', [False, True])
def test_maps_grow_as_asked(align_corners):
    """To the largest one, corner to corner or not."""
    head, maps = build_head(align_corners=align_corners).eval(), make_maps(1)
    _, clusters = head.get_logits(maps)
    mode = dict(mode='bilinear', align_corners=align_corners)
    with torch.no_grad():
        grown = [
            nn.functional.interpolate(conv(x), maps[0].shape[2:], **mode)
            for conv, x in zip(head.convs, maps)
        ]
        torch.testing.assert_close(clusters, head.clustering(torch.cat(grown, dim=1)))


@pytest.mark.parametrize('batch, training', [(1, False), (1, True), (2, True)])
def test_gradients_equal_finite_differences(batch, training):
    """In float64; GELU, for a ReLU has kinks."""
    head = build_head(act_cfg=dict(type='GELU')).double().train(training)
    nn.init.normal_(head.conv_seg.weight)
    maps = [m.requires_grad_() for m in make_maps(batch, dtype=torch.float64)]
    samples = make_samples(batch)

    def loss() -> torch.Tensor:
        losses = head.loss(maps, samples, {})
        return losses['loss_ce'] + losses['loss_cluster']

    tensors = {f'map {i}': m for i, m in enumerate(maps)} | dict(head.named_parameters())
    check_gradients(loss, tensors)
