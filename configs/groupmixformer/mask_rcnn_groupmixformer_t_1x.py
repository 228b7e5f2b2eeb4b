"""Mask R-CNN, GroupMixFormer-T, COCO 1x.
bash tools/dist_train.sh configs/groupmixformer/mask_rcnn_groupmixformer_t_1x.py 8"""

_base_ = 'mask_rcnn_groupmixformer_s_1x.py'
model = dict(
    backbone=dict(
        arch='tiny',
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint='mmdense://groupmixformer_t_in1k'),
    ),
    neck=dict(in_channels=[80, 160, 200, 240]),
)
