"""The PaCa head, PaCa-ViT base with clusters from a teacher, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/paca/paca_head_paca_b_teacher_160k.py 8"""

_base_ = 'paca_head_paca_b_160k.py'
model = dict(
    backbone=dict(
        arch='base_teacher',
        clusters=(200, 200, 200, 200),
        init_cfg=dict(checkpoint='mmdense://paca_b_teacher_in1k'),
    )
)
