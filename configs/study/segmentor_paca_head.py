"""The study's segmentor with the PaCa head.

    python tools/train.py configs/study/segmentor_paca_head.py

Measured: docs/study.md.
"""

_base_ = 'segmentor.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        **_base_.head,
        type='mmdense.PaCaSegHead',
        in_channels=_base_.widths,
        in_index=[0, 1, 2, 3],
        loss_cluster=dict(
            type='CrossEntropyLoss',
            loss_name='loss_cluster',
            loss_weight=0.4,
            class_weight=_base_.class_weight,
        ),
    ),
)
