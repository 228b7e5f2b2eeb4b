"""UperNet, SimpleViT-S with mean-shift attention and a feature pyramid, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/msf/upernet_msf_s_160k.py 8"""

_base_ = '../_base_/upernet.py'
model = dict(
    backbone=dict(
        type='mmdense.MSFViT',
        arch='small',
        out_indices=(2, 5, 8, 11),
        init_cfg=dict(checkpoint='mmdense://msf_s_in1k'),
    ),
    neck=dict(type='mmseg.Feature2Pyramid', embed_dim=384, norm_cfg=dict(type='SyncBN')),
    decode_head=dict(in_channels=[384] * 4),
    auxiliary_head=dict(in_channels=384),
)
