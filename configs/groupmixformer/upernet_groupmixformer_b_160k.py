"""UperNet, GroupMixFormer-B, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/groupmixformer/upernet_groupmixformer_b_160k.py 8"""

_base_ = 'upernet_groupmixformer_s_160k.py'
model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.5,
        init_cfg=dict(checkpoint='mmdense://groupmixformer_b_in1k'),
    ),
    decode_head=dict(in_channels=[200, 240, 320, 480]),
)
