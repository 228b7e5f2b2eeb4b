"""Semantic FPN, GroupMixFormer-S, ADE20K, 40k iterations.
bash tools/dist_train.sh configs/groupmixformer/sem_fpn_groupmixformer_s_40k.py 8"""

_base_ = '../_base_/sem_fpn.py'
model = dict(
    backbone=dict(
        type='mmdense.GroupMixFormer',
        arch='small',
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='mmdense://groupmixformer_s_in1k'),
    ),
    neck=dict(in_channels=[80, 160, 320, 320]),
)
