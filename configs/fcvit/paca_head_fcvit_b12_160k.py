"""The PaCa head, FCViT-b12, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/fcvit/paca_head_fcvit_b12_160k.py 8"""

_base_ = '../_base_/paca_head.py'
model = dict(
    backbone=dict(
        type='mmdense.FCViT',
        arch='b12',
        layer_scale=1e-6,
        init_cfg=dict(checkpoint='mmdense://fcvit_b12_in1k'),
    ),
    decode_head=dict(in_channels=[64, 128, 320, 512]),
)
