"""Semantic FPN, GroupMixFormer-S, ADE20K, 40k iterations.

    bash tools/dist_train.sh configs/groupmixformer/sem_fpn_groupmixformer_s_40k.py 8

Parameters: 26.33 M; 48.3 GMACs at 512 x 512. The authors released no config; the recipe is that of
configs/_base_/sem_fpn.py.
"""

_base_ = '../_base_/sem_fpn.py'

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
