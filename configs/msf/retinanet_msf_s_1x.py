"""RetinaNet, SimpleViT-S with mean-shift attention and a feature pyramid, COCO 1x.
bash tools/dist_train.sh configs/msf/retinanet_msf_s_1x.py 8"""

_base_ = ['../_base_/retinanet.py', '../_base_/adamw_1x.py']
model = dict(
    backbone=dict(
        type='mmdense.MSFViT',
        arch='small',
        out_indices=(2, 5, 8, 11),
        init_cfg=dict(checkpoint='mmdense://msf_s_in1k'),
    ),
    neck=[
        dict(
            type='mmseg.Feature2Pyramid',
            embed_dim=384,
            rescales=[2, 1, 0.5, 0.25],
            norm_cfg=dict(type='BN'),
        ),
        dict(type='FPN', in_channels=[384] * 4, out_channels=256, num_outs=5),
    ],
)
