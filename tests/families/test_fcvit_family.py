"""What is shown of FCViT is what it computes."""

from looking import record, see

from mmdense.backbones.layers import to_tokens


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
