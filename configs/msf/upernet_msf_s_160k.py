"""UperNet, SimpleViT-S with mean-shift attention and a feature pyramid, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/msf/upernet_msf_s_160k.py 8

Parameters: 55.22 M; 250.9 GMACs at 512 x 512. No published run; the recipe is that of
configs/_base_/upernet.py.
"""

_base_ = '../_base_/upernet.py'

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
    neck=dict(type='mmseg.Feature2Pyramid', embed_dim=384, norm_cfg=dict(type='SyncBN')),
    decode_head=dict(in_channels=[384, 384, 384, 384]),
    auxiliary_head=dict(in_channels=384),
)
