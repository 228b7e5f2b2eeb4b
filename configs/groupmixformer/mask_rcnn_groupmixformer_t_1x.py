"""Mask R-CNN, GroupMixFormer-T, COCO 1x.

    bash tools/dist_train.sh configs/groupmixformer/mask_rcnn_groupmixformer_t_1x.py 8

Parameters: 30.79 M; 245.5 GMACs at 800 x 1280. The authors released no config; the recipe is that
of configs/_base_/mask_rcnn.py.
"""

_base_ = '../_base_/mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.GroupMixFormer',
        arch='tiny',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='checkpoints/groupmixformer_t_in1k.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=[80, 160, 200, 240]),
)
