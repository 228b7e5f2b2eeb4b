"""Semantic FPN, SimpleViT-S with mean-shift attention and a feature pyramid, ADE20K, 40k iterations.

    bash tools/dist_train.sh configs/msf/sem_fpn_msf_s_40k.py 8

Parameters: 29.51 M; 60.2 GMACs at 512 x 512. No published run; the recipe is that of
configs/_base_/sem_fpn.py.
"""

_base_ = '../_base_/sem_fpn.py'

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
        dict(type='mmseg.Feature2Pyramid', embed_dim=384, norm_cfg=dict(type='SyncBN')),
        dict(type='FPN', in_channels=[384] * 4, out_channels=256, num_outs=4),
    ],
)
