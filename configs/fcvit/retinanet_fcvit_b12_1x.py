"""RetinaNet, FCViT-b12, COCO 1x.
bash tools/dist_train.sh configs/fcvit/retinanet_fcvit_b12_1x.py 8"""

_base_ = ['../_base_/retinanet.py', '../_base_/adamw_1x.py']
model = dict(
    backbone=dict(
        type='mmdense.FCViT',
        arch='b12',
        layer_scale=1e-6,
        out_indices=(1, 2, 3),
        init_cfg=dict(checkpoint='mmdense://fcvit_b12_in1k'),
    ),
    neck=dict(in_channels=[128, 320, 512]),
)
