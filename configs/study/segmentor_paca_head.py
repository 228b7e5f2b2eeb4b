"""The study's segmentor with the PaCa head, and no auxiliary one.

    python tools/train.py configs/study/segmentor_paca_head.py

Measured: docs/study.md.
"""

_base_ = 'segmentor.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        type='mmdense.PaCaSegHead',
        in_channels=_base_.widths,
        in_index=[0, 1, 2, 3],
        channels=32,
        num_classes=11,
        norm_cfg=dict(type='BN'),
        align_corners=False,
        loss_decode=_base_.model.decode_head.loss_decode,
    ),
    auxiliary_head=None,
)
