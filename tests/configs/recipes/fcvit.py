"""FCViT: its own runs on COCO, and on ADE20K with Semantic FPN."""

from recipes.common import COCO, DENSE, IMAGENET, ONE_SCALE, PACA_HEAD, THREE_TIMES, dense

FCVIT = dict(  # as PoolFormer
    IMAGENET,
    warm_up='5 epochs from 0.001',
    schedule='cosine from 5 to 300, min 1e-06',
    drop_path=0.1,
    layer_scale=1e-5,
)
FCVIT_COCO = dict(COCO, lr=2e-4, weight_decay=1e-4, norm_decay=1)
FCVIT_DENSE = {
    **DENSE,
    'mask_rcnn_*_1x': dict(FCVIT_COCO, **ONE_SCALE),
    'mask_rcnn_*_3x': dict(FCVIT_COCO, **THREE_TIMES),
}
RECIPES = {
    'fcvit/fcvit_tiny_in1k': FCVIT,
    'fcvit/fcvit_b12_in1k': FCVIT,
    'fcvit/fcvit_b24_in1k': dict(FCVIT, test=[236, 224]),
    'fcvit/fcvit_b48_in1k': dict(FCVIT, test=[236, 224], drop_path=0.2),
    **dense('fcvit/*', FCVIT_DENSE, drop_path=0.1, layer_scale=1e-6),
    'fcvit/paca_head_*': dict(PACA_HEAD, drop_path=0.1, layer_scale=1e-6),
}
