"""Mask R-CNN, GroupMixFormer-S, COCO 1x.

    bash tools/dist_train.sh configs/groupmixformer/mask_rcnn_groupmixformer_s_1x.py 8

Parameters: 42.23 M; 275.2 GMACs at 800 x 1280. The authors released no config; the recipe is that
of configs/_base_/mask_rcnn.py.
"""

_base_ = '../_base_/mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.GroupMixFormer',
        arch='small',
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='checkpoints/groupmixformer_s_in1k.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=[80, 160, 320, 320]),
)
