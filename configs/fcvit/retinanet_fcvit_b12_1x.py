"""RetinaNet, FCViT-b12, COCO 1x.

    bash tools/dist_train.sh configs/fcvit/retinanet_fcvit_b12_1x.py 8

Parameters: 24.44 M; 205.5 GMACs at 800 x 1280. No published run; the recipe is that of
configs/_base_/retinanet.py.
"""

_base_ = '../_base_/retinanet.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.FCViT',
        arch='b12',
        layer_scale=1e-6,
        out_indices=(1, 2, 3),
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/fcvit_b12_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[128, 320, 512]),
)
