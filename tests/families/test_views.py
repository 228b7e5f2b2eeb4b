"""What is shown of a model is what it computes."""

import pytest
import torch
from helpers import TINY, build
from torch import Tensor, nn

from mmdense.backbones.layers import to_tokens
from mmdense.families.views import split_heads, token_at
from mmdense.heads import PaCaSegHead
from mmdense.inference.visualize import find_watches, list_kinds, look, watching

IMAGE = torch.randn(1, 3, 96, 160, generator=torch.Generator().manual_seed(0))
QUERY = (100, 50)


def see(name: str, kind: str, **kwargs: object) -> tuple[nn.Module, dict]:
    """The backbone, and its views of a kind by place."""
    model = build(name, **kwargs).eval()
    views = look(model, lambda: model(IMAGE), QUERY, (kind,))[kind]
    return model, {view.name: view for view in views}


def record(model: nn.Module, pattern: str) -> dict:
    with watching(model, pattern) as calls, torch.no_grad():
        model(IMAGE)
    return calls


@pytest.mark.parametrize('name', TINY)
def test_looking_changes_nothing(name):
    model = build(name).eval()
    with torch.no_grad():
        before = model(IMAGE)
    outs = []
    views = look(model, lambda: outs.extend(model(IMAGE)), QUERY, list_kinds())
    for a, b in zip(before, outs, strict=True):  # what is looked at does not run fused with others
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert not any(module._forward_hooks for module in model.modules())
    assert views and views.keys() <= {watch.kind for watch, _ in find_watches(model)}
    for view in (view for found in views.values() for view in found):
        assert view.maps.isfinite().all() and len(view.labels) == len(view.maps)
        height, width = view.maps.shape[1:]
        assert (height * view.stride, width * view.stride) == IMAGE.shape[2:]


def test_hooks_go_after_an_error():
    model = build('FCViT')
    with pytest.raises(ZeroDivisionError):
        look(model, lambda: 1 / 0, QUERY, ('features',))
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize('name', TINY)
def test_every_kind_that_a_family_declares(name):
    """Of ordinary attention there is no displacement to see."""
    model = build(name).eval()
    kinds = {watch.kind for watch, _ in find_watches(model)}
    assert kinds - look(model, lambda: model(IMAGE), QUERY, list_kinds()).keys() == (
        {'displacement'} if name == 'MSFViT-orig' else set()
    )


@pytest.mark.parametrize(
    'name, places',
    [
        ('PaCaViT', ['stage1_block1', 'stage2_block1', 'stage3_block1']),
        ('PaCaViT-teacher', [f'stage{i}_block1' for i in (1, 2, 3, 4)]),
        (
            'PaCaViT-options',
            ['stage1_block1', 'stage2_block1', 'stage3_block1', 'stage3_block3'],
        ),
    ],
)
def test_clusters(name, places):
    """One view per clustering, each cluster a distribution over the positions."""
    _, views = see(name, 'clusters')
    assert list(views) == places
    for view in views.values():
        assert len(view.maps) == 9 and torch.equal(view.owners, view.maps.argmax(dim=0))
        assert view.maps.sum(dim=(1, 2)).allclose(torch.ones(9))


def test_clusters_of_the_head():
    head = PaCaSegHead([16, 24], 8, num_classes=4, in_index=[0, 1]).eval()
    maps = [torch.randn(1, 16, 24, 40), torch.randn(1, 24, 12, 20)]
    (view,) = look(head, lambda: head(maps), QUERY, ('clusters',))['clusters']
    with torch.no_grad():
        logits = head.get_logits(maps)[1][0]
    assert view.maps.allclose(logits.flatten(1).softmax(1).view_as(logits))
    assert view.maps.shape == (4, 24, 40)
    assert torch.equal(view.owners, logits.argmax(dim=0))


def attend(view_maps: Tensor, v: Tensor) -> Tensor:
    """Maps (h, H, W) and values (h, N, d) -> what the query receives (h, d)."""
    return torch.einsum('hn,hnd->hd', view_maps.flatten(1), v)


def test_attention_of_patches():
    """PaCa-ViT's last stage has no clusters: the maps, times v, are what the projection gets."""
    model, views = see('PaCaViT', 'attention')
    assert len(views) == 7
    attn = record(model, r'stages\.3\.blocks\.0\.attn\.(v|proj)$')
    view = views['stage4_block1']
    received = attend(view.maps, split_heads(attn['stages.3.blocks.0.attn.v'].out, 4)).flatten()
    y = attn['stages.3.blocks.0.attn.proj'].args[0]
    assert received.allclose(y[0, token_at(QUERY, 32, (3, 5))], atol=1e-6)


def test_attention_leaves_padding_out():
    """With mask_padding, positions in a zero border are no keys where a stage has no clusters."""
    model = build('PaCaViT', mask_padding=True).eval()
    padded = IMAGE.clone()
    padded[..., 96:] = 0
    views = look(model, lambda: model(padded), (50, 50), ('attention',))['attention']
    with watching(model, r'stages\.3\.blocks\.0\.attn\.(v|proj)$') as attn, torch.no_grad():
        model(padded)
    maps = views[-1].maps
    assert views[-1].name == 'stage4_block1' and not maps[..., 3:].any()
    received = attend(maps, split_heads(attn['stages.3.blocks.0.attn.v'].out, 4)).flatten()
    y = attn['stages.3.blocks.0.attn.proj'].args[0]
    assert received.allclose(y[0, token_at((50, 50), 32, (3, 5))], atol=1e-6)


def test_attention_to_clusters():
    """The maps are the attention to clusters, recomputed, times the clusters' distributions."""
    model, views = see('PaCaViT', 'attention')
    attn = model.stages[1].blocks[1].attn
    call = record(model, r'stages\.1\.blocks\.1\.attn$')['stages.1.blocks.1.attn']
    x, size, assignment, _ = call.args
    with torch.no_grad():
        clusters = attn.cluster_norm(assignment @ x)
        q, k = attn.q(x)[0, token_at(QUERY, 8, size)], attn.k(clusters)[0]
        heads = [(k[:, s] @ q[s] * 12**-0.5).softmax(0) for s in (slice(12), slice(12, 24))]
    expected = torch.stack(heads) @ assignment[0]
    assert views['stage2_block2'].maps.flatten(1).allclose(expected, atol=1e-7)
    assert expected.sum(dim=1).allclose(torch.ones(2))


def test_attention_of_group_proxies():
    """The maps, times v, with position encoding and scale, are what the projection gets."""
    model, views = see('GroupMixFormer', 'attention')
    name = 'stages.1.blocks.1.attn'
    calls = record(model, rf'{name}(\.proj|\.position|\.aggregator)?$')
    (q, _, v), _ = calls[f'{name}.aggregator'].out
    n = token_at(QUERY, 8, (12, 20))
    received = attend(views['stage2_block2'].maps, split_heads(v, 8)).flatten()
    position = (q * calls[f'{name}.position'].out)[0, n]
    expected = calls[f'{name}.proj'].args[0][0, n, : len(received)]
    scale = calls[name].module.scale
    assert (scale * received + position).allclose(expected, atol=1e-6)
    assert views['stage2_block2'].labels[7] == 'head 8, window 7'


def test_proxies():
    model, views = see('GroupMixFormer', 'proxies')
    assert len(views) == 5
    name = 'stages.0.blocks.0.attn.aggregator'
    (_, k, _), _ = record(model, rf'{name}$')[name].out  # (1, N, 4S)
    segment = k[0, :, 16:24].square().mean(dim=1).sqrt()  # S = 40 / 5; the third, window 5
    view = views['stage1_block1']
    i = view.labels.index('k, window 5')
    assert view.maps[i].flatten().allclose(segment)


@pytest.mark.parametrize('name', ['MSFViT', 'MSFViT-groups'])
def test_displacement_is_attention_times_values_from_where_a_token_is(name):
    """|sum_j w_nj v_j - p_n| by the attention's view is the displacement's view at n."""
    model, attention = see(name, 'attention')
    _, displacement = see(name, 'displacement')
    assert list(attention) == [f'layer{i}' for i in (1, 2, 3, 4)]
    qkv = record(model, r'layers\.2\.attn\.qkv$')['layers.2.attn.qkv'].out
    v, p = (split_heads(t, 2) for t in qkv.chunk(4, dim=2)[2:])
    n = token_at(QUERY, 16, (6, 10))
    moved = attend(attention['layer3'].maps, v) - p[:, n]
    assert displacement['layer3'].maps.flatten(1)[:, n].allclose(moved.norm(dim=1), atol=1e-6)
    assert attention['layer3'].maps.sum(dim=(1, 2)).allclose(torch.ones(2))


def test_similarity_weighs_the_context():
    """What the global context adds is proportional, head by head, to the similarity shown."""
    model, views = see('FCViT', 'similarity')
    assert len(views) == 5 * 2  # blocks times mixers
    name = 'stages.2.blocks.1.token_mixer.1.context'
    call = record(model, rf'{name}$')[name]
    added = to_tokens(call.out - call.args[0])[0].unflatten(1, (8, -1))  # (N, h, d)
    similarity = views['stage3_block2_mixer2'].maps.flatten(1).T  # (N, h)
    assert similarity.mean().abs() < 1e-5
    weight = similarity[..., None]
    context = (added * weight).sum(dim=0) / weight.square().sum(dim=0)  # (h, d), least squares
    assert added.allclose(weight * context, atol=1e-6) and added.abs().mean() > 1e-3


def test_features():
    model, views = see('PaCaViT', 'features')
    with torch.no_grad():
        maps = model(IMAGE)
    for i, feature in enumerate(maps):
        view = views[f'stage{i + 1}']
        assert view.maps[0].allclose(feature[0].square().mean(dim=0).sqrt())
        shown = [int(label.split()[1]) - 1 for label in view.labels[1:]]
        assert torch.equal(view.maps[1:], feature[0, shown])
        assert view.colours.shape == (*feature.shape[2:], 3)
        assert 0 <= view.colours.min() < 0.01 and 0.99 < view.colours.max() <= 1


def test_features_of_a_classifier_without_maps():
    _, views = see('MSFViT', 'features', out_type='avg_featmap')
    assert views['layer4'].maps.shape[1:] == (6, 10)
