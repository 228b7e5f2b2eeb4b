"""What is shown of MSF is what it computes."""

import pytest
import torch
from looking import QUERY, attend, record, see

from mmdense.families.views import split_heads, token_at


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


def test_features_of_a_classifier_without_maps():
    _, views = see('MSFViT', 'features', out_type='avg_featmap')
    assert views['layer4'].maps.shape[1:] == (6, 10)
