"""UperNet, GroupMixFormer-S, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/groupmixformer/upernet_groupmixformer_s_160k.py 8

Parameters: 51.33 M; 237.4 GMACs at 512 x 512. The authors released no config; the recipe is that of
configs/_base_/upernet.py.
"""

_base_ = '../_base_/upernet.py'

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
    auxiliary_head=dict(in_channels=320),
)
