"""The PaCa head, PaCa-ViT small with MLP clustering, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/paca/paca_head_paca_s_mlp_160k.py 8

Parameters: 23.95 M; 49.7 GMACs at 512 x 512. Published (paper, ADE20K table): 24.0 M, 50.0 GFLOPs
at 512 x 512, mIoU 48.2 (single scale).
"""

_base_ = '../_base_/paca_head.py'

model = dict(
    backbone=dict(
        type='mmdense.PaCaViT',
        arch='small',
        clustering='mlp',
        clusters=(200, 200, 200, 0),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_s_mlp_in1k.pth', prefix='backbone.'
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 320, 384], in_index=[0, 1, 2, 3]),
)

# The published run names a layer that MLP clustering has not: its cluster layers learn as the rest.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'clustering.assign': dict(lr_mult=1.0)}))
