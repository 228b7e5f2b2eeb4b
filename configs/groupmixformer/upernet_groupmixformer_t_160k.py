"""UperNet, GroupMixFormer-T, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/groupmixformer/upernet_groupmixformer_t_160k.py 8

Parameters: 39.07 M; 229.7 GMACs at 512 x 512. The authors released no config; the recipe is that of
configs/_base_/upernet.py.
"""

_base_ = '../_base_/upernet.py'

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
    decode_head=dict(in_channels=[80, 160, 200, 240]),
    auxiliary_head=dict(in_channels=200),
)
