"""The PaCa head, PaCa-ViT base with clusters from a teacher, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/paca/paca_head_paca_b_teacher_160k.py 8

Parameters: 48.76 M; 68.9 GMACs at 512 x 512. Published (paper, ADE20K table): 48.8 M, 68.7 GFLOPs
at 512 x 512, mIoU 48.4 (single scale).
"""

_base_ = '../_base_/paca_head.py'

model = dict(
    backbone=dict(
        type='mmdense.PaCaViT',
        arch='base_teacher',
        clusters=(200, 200, 200, 200),
        drop_path_rate=0.5,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_b_teacher_in1k.pth', prefix='backbone.'
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 512], in_index=[0, 1, 2, 3]),
)
