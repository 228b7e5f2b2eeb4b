"""The study: the digit scenes' recipes, shorter, and alike for all networks."""

from recipes.digits import DIGITS
from recipes.digits import RECIPES as DIGIT_RECIPES

SEGMENTOR = dict(
    DIGITS,
    mults={'backbone': (0.25, 1)},
    schedule='cosine from 0 to 3, min 1e-05',
    length='3 epochs',
    batch=4,
    base_batch=4,
)
RECIPES = {
    'study/classifier': dict(
        DIGIT_RECIPES['digits/paca_digits'],
        warm_up='50 iterations from 0.01',
        schedule='cosine from 0 to 2, min 1e-05',
        length='2 epochs',
        batch=16,
        base_batch=16,
    ),
    'study/detector': dict(
        DIGIT_RECIPES['digits/mask_rcnn_paca_digits'],
        warm_up='25 iterations from 0.01',
        schedule='cosine from 0 to 1, min 1e-05',
        length='1 epochs',
        batch=4,
        base_batch=4,
    ),
    'study/segmentor*': SEGMENTOR,
}
