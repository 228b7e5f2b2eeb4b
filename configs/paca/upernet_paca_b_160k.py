"""UperNet, PaCa-ViT base with convolutional clustering, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/paca/upernet_paca_b_160k.py 8"""

_base_ = 'upernet_paca_s_160k.py'
model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint='mmdense://paca_b_in1k')),
    decode_head=dict(in_channels=[96, 192, 384, 512]),
    auxiliary_head=dict(in_channels=384),
)
