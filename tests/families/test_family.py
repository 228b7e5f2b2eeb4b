"""How authors count parameters and FLOPs."""

import pytest

from mmdense.families import FAMILIES, fcvit, groupmixformer, msf, paca
from mmdense.families.family import Totals, count_plainly

TOTALS = Totals(
    params=3_000_000,
    matrix_params=2_000_000,
    macs=5_000_000_000,
    layer_norm=20_000_000,
    batch_norm=30_000_000,
    transposed=700_000_000,
)


@pytest.mark.parametrize(
    'count, params, flops',
    [
        (count_plainly, 3, 5),
        (paca.count, 3, 5.7),  # transposed convolutions at the size of their output
        (groupmixformer.count, 3, 5 + 5 * 0.02 + 2 * 0.03),
        (fcvit.count, 3e6 / 1024**2, 5),  # parameters in units of 2^20
        (msf.count, 2, 5),  # no vectors
    ],
)
def test_how_authors_count(count, params, flops):
    found = count(TOTALS)
    assert found.params == pytest.approx(params) and found.flops == pytest.approx(flops)


def test_every_family_counts_its_own_way():
    ways = {family.name: family.count for family in FAMILIES}
    modules = dict(paca=paca, groupmixformer=groupmixformer, fcvit=fcvit, msf=msf)
    for name, module in modules.items():
        assert ways[name] is module.count
