"""The PaCa head, PaCa-ViT small with clusters from a teacher, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/paca/paca_head_paca_s_teacher_160k.py 8"""

_base_ = 'paca_head_paca_s_160k.py'
model = dict(
    backbone=dict(
        arch='small_teacher',
        clusters=(200, 200, 200, 200),
        init_cfg=dict(checkpoint='mmdense://paca_s_teacher_in1k'),
    )
)
