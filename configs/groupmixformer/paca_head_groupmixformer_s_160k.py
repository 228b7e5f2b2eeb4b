"""The PaCa head, GroupMixFormer-S, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/groupmixformer/paca_head_groupmixformer_s_160k.py 8"""

_base_ = '../_base_/paca_head.py'
model = dict(
    backbone=dict(
        type='mmdense.GroupMixFormer',
        arch='small',
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='mmdense://groupmixformer_s_in1k'),
    ),
    decode_head=dict(in_channels=[80, 160, 320, 320]),
)
