"""UperNet, GroupMixFormer-T, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/groupmixformer/upernet_groupmixformer_t_160k.py 8"""

_base_ = 'upernet_groupmixformer_s_160k.py'
model = dict(
    backbone=dict(
        arch='tiny',
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint='mmdense://groupmixformer_t_in1k'),
    ),
    decode_head=dict(in_channels=[80, 160, 200, 240]),
    auxiliary_head=dict(in_channels=200),
)
