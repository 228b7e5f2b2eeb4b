"""Semantic FPN, SimpleViT-S with mean-shift attention and a feature pyramid, ADE20K, 40k iterations.
bash tools/dist_train.sh configs/msf/sem_fpn_msf_s_40k.py 8"""

_base_ = '../_base_/sem_fpn.py'
model = dict(
    backbone=dict(
        type='mmdense.MSFViT',
        arch='small',
        out_indices=(2, 5, 8, 11),
        init_cfg=dict(checkpoint='mmdense://msf_s_in1k'),
    ),
    neck=[
        dict(type='mmseg.Feature2Pyramid', embed_dim=384, norm_cfg=dict(type='SyncBN')),
        dict(type='FPN', in_channels=[384] * 4, out_channels=256, num_outs=4),
    ],
)
