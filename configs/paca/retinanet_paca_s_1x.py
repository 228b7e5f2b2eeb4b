"""RetinaNet, PaCa-ViT small with convolutional clustering, COCO 1x.
bash tools/dist_train.sh configs/paca/retinanet_paca_s_1x.py 8"""

_base_ = ['../_base_/retinanet.py', '../_base_/adamw_1x.py']
model = dict(
    backbone=dict(
        type='mmdense.PaCaViT',
        arch='small',
        drop_path_rate=0.1,
        out_indices=(1, 2, 3),
        init_cfg=dict(checkpoint='mmdense://paca_s_in1k'),
    ),
    neck=dict(in_channels=[192, 320, 384]),
)
