"""GroupMixFormer."""

from recipes.common import COCO, IMAGENET, PACA_HEAD, UPERNET, dense

GROUPMIXFORMER = dict(
    IMAGENET,
    lr=5e-4,
    warm_up='20 epochs from 0.001',  # a learning rate of 5e-7
    schedule='cosine from 20 to 300, min 5e-06',
    clip_grad=5,
    batch=64,
    base_batch=512,
    test=[256, 224],
)
RECIPES = {
    'groupmixformer/groupmixformer_[mtl]_in1k': dict(GROUPMIXFORMER, drop_path=0.1),
    'groupmixformer/groupmixformer_s_in1k': dict(GROUPMIXFORMER, drop_path=0.2),
    'groupmixformer/groupmixformer_b_in1k': dict(GROUPMIXFORMER, drop_path=0.5),
    **dense('groupmixformer/groupmixformer_s', drop_path=0.2),
    'groupmixformer/paca_head_*': dict(PACA_HEAD, drop_path=0.2),
    'groupmixformer/mask_rcnn_groupmixformer_t_1x': dict(COCO, drop_path=0.1),
    'groupmixformer/mask_rcnn_groupmixformer_b_1x': dict(COCO, drop_path=0.5),
    'groupmixformer/upernet_groupmixformer_t_160k': dict(UPERNET, drop_path=0.1),
    'groupmixformer/upernet_groupmixformer_b_160k': dict(UPERNET, drop_path=0.5),
}
