"""The PaCa head, GroupMixFormer-S, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/groupmixformer/paca_head_groupmixformer_s_160k.py 8

Parameters: 23.52 M; 42.2 GMACs at 512 x 512. The authors released no config; the recipe is that of
configs/_base_/paca_head.py.
"""

_base_ = '../_base_/paca_head.py'

model = dict(
    backbone=dict(
        type='mmdense.GroupMixFormer',
        arch='small',
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='checkpoints/groupmixformer_s_in1k.pth',
            prefix='backbone.',
        ),
    ),
    decode_head=dict(in_channels=[80, 160, 320, 320], in_index=[0, 1, 2, 3]),
)
