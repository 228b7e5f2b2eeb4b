"""The digit scenes, this project's own."""

from recipes.common import COMMON

DIGITS = dict(
    COMMON,
    lr=2e-3,
    weight_decay=0.05,
    bias_decay=0,
    clip_grad=5,
    drop_path=0.0,
    warm_up='50 iterations from 0.01',
    batch=8,
    base_batch=8,
    flip=None,
    augmentations='RandomResize RandomCrop PhotoMetricDistortion',
    train=[(128, 128, 0.8, 1.25), (128, 128)],
    test=[(128, 128)],
)
RECIPES = {
    'digits/paca_digits': dict(
        DIGITS,
        lr=1e-3,
        warm_up='1 epochs from 0.01',
        schedule='cosine from 1 to 8, min 1e-05',
        length='8 epochs',
        batch=32,
        base_batch=32,
        augmentations='RandomResizedCrop',
        train=[48],
        test=[],
        smoothing=0.1,
    ),
    'digits/mask_rcnn_paca_digits': dict(
        DIGITS, schedule='cosine from 0 to 3, min 1e-05', length='3 epochs'
    ),
    'digits/upernet_paca_digits': dict(
        DIGITS,
        lr=3e-3,
        schedule='cosine from 0 to 7, min 1e-05',
        length='7 epochs',
        augmentations='RandomRotate RandomResize RandomCrop PhotoMetricDistortion',
        train=[(128, 128, 0.8, 1.25), (112, 112)],
        mults={'backbone': (0.25, 1)},
    ),
}
