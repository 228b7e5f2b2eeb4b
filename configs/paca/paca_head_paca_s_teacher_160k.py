"""The PaCa head, PaCa-ViT small with clusters from a teacher, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/paca/paca_head_paca_s_teacher_160k.py 8

Parameters: 22.24 M; 46.5 GMACs at 512 x 512. Published (paper, ADE20K table): 22.2 M, 46.4 GFLOPs
at 512 x 512, mIoU 46.2 (single scale).
"""

_base_ = '../_base_/paca_head.py'

model = dict(
    backbone=dict(
        type='mmdense.PaCaViT',
        arch='small_teacher',
        clusters=(200, 200, 200, 200),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/paca_s_teacher_in1k.pth', prefix='backbone.'
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 320, 384], in_index=[0, 1, 2, 3]),
)
