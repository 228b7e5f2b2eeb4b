"""RetinaNet, GroupMixFormer-S, COCO 1x.
bash tools/dist_train.sh configs/groupmixformer/retinanet_groupmixformer_s_1x.py 8"""

_base_ = ['../_base_/retinanet.py', '../_base_/adamw_1x.py']
model = dict(
    backbone=dict(
        type='mmdense.GroupMixFormer',
        arch='small',
        drop_path_rate=0.2,
        out_indices=(1, 2, 3),
        init_cfg=dict(checkpoint='mmdense://groupmixformer_s_in1k'),
    ),
    neck=dict(in_channels=[160, 320, 320]),
)
