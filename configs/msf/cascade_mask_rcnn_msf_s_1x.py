"""Cascade Mask R-CNN, SimpleViT-S with mean-shift attention and a feature pyramid, COCO 1x.

    bash tools/dist_train.sh configs/msf/cascade_mask_rcnn_msf_s_1x.py 8

Parameters: 78.34 M; 564.8 GMACs at 800 x 1280. No published run; the recipe is that of
configs/_base_/cascade_mask_rcnn.py.
"""

_base_ = '../_base_/cascade_mask_rcnn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.MSFViT',
        arch='small',
        out_indices=(2, 5, 8, 11),
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/msf_s_in1k.pth', prefix='backbone.'
        ),
    ),
    neck=[
        dict(type='mmseg.Feature2Pyramid', embed_dim=384, norm_cfg=dict(type='BN')),
        dict(type='FPN', in_channels=[384] * 4, out_channels=256, num_outs=5),
    ],
)
