"""Backbones of timm in the families' recipes."""

from recipes.common import DENSE, PACA_HEAD, dense

TIMM_DENSE = {method: row for method, row in DENSE.items() if not method.endswith('_3x')}
RECIPES = {
    **dense('timm/*', TIMM_DENSE, drop_path=0.1),
    'timm/paca_head_*': dict(PACA_HEAD, drop_path=0.1),
}
