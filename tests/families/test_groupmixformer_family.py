"""What is shown of GroupMixFormer is what it computes."""

from looking import QUERY, attend, record, see

from mmdense.families.views import split_heads, token_at


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
