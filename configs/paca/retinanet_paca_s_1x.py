"""RetinaNet, PaCa-ViT small with convolutional clustering, COCO 1x.

    bash tools/dist_train.sh configs/paca/retinanet_paca_s_1x.py 8

Parameters: 31.59 M; 261.6 GMACs at 800 x 1280. No published run; the recipe is that of
configs/_base_/retinanet.py.
"""

_base_ = '../_base_/retinanet.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.PaCaViT',
        arch='small',
        drop_path_rate=0.1,
        out_indices=(1, 2, 3),
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_s_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[192, 320, 384]),
)
