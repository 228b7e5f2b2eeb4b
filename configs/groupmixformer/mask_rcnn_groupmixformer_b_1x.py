"""Mask R-CNN, GroupMixFormer-B, COCO 1x.
bash tools/dist_train.sh configs/groupmixformer/mask_rcnn_groupmixformer_b_1x.py 8"""

_base_ = 'mask_rcnn_groupmixformer_s_1x.py'
model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.5,
        init_cfg=dict(checkpoint='mmdense://groupmixformer_b_in1k'),
    ),
    neck=dict(in_channels=[200, 240, 320, 480]),
)
