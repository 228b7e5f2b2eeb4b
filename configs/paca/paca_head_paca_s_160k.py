"""The PaCa head, PaCa-ViT small with convolutional clustering, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/paca/paca_head_paca_s_160k.py 8"""

_base_ = '../_base_/paca_head.py'
model = dict(
    backbone=dict(
        type='mmdense.PaCaViT',
        arch='small',
        drop_path_rate=0.1,
        clusters=(200, 200, 200, 0),
        init_cfg=dict(checkpoint='mmdense://paca_s_in1k'),
    ),
    decode_head=dict(in_channels=[96, 192, 320, 384]),
)
