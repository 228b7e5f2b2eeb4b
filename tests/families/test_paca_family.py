"""What is shown of PaCa-ViT is what it computes."""

import pytest
import torch
from helpers import build
from looking import IMAGE, QUERY, attend, record, see

from mmdense.families.views import split_heads, token_at
from mmdense.heads import PaCaSegHead
from mmdense.inference.visualize import look, watching


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
