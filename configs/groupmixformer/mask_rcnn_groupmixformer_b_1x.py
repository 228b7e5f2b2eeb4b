"""Mask R-CNN, GroupMixFormer-B, COCO 1x.

    bash tools/dist_train.sh configs/groupmixformer/mask_rcnn_groupmixformer_b_1x.py 8

Parameters: 65.57 M; 528.4 GMACs at 800 x 1280. The authors released no config; the recipe is that
of configs/_base_/mask_rcnn.py.
"""

_base_ = '../_base_/mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.GroupMixFormer',
        arch='base',
        drop_path_rate=0.5,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='checkpoints/groupmixformer_b_in1k.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=[200, 240, 320, 480]),
)
