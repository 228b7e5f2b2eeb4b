"""The study's segmentor with Semantic FPN.

    python tools/train.py configs/study/segmentor_sem_fpn.py

Measured: docs/study.md.
"""

_base_ = 'segmentor.py'
model = dict(
    neck=[dict(type='FPN', in_channels=_base_.widths, out_channels=32, num_outs=4)],
    decode_head=dict(
        _delete_=True,
        **_base_.head,
        type='FPNHead',
        in_channels=[32] * 4,
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
    ),
)
