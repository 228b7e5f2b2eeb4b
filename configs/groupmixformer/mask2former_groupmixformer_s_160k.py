"""Mask2Former, GroupMixFormer-S, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/groupmixformer/mask2former_groupmixformer_s_160k.py 8

Parameters: 41.88 M; 70.4 GMACs at 512 x 512. The authors released no config; the recipe is that of
configs/_base_/mask2former.py.
"""

_base_ = '../_base_/mask2former.py'

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
    decode_head=dict(in_channels=[80, 160, 320, 320]),
)
