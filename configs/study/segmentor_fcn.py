"""The study's segmentor with an FCN head on the map of stride 16.

    python tools/train.py configs/study/segmentor_fcn.py

Measured: docs/study.md.
"""

_base_ = 'segmentor.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        **_base_.head,
        type='FCNHead',
        in_channels=_base_.widths[2],
        in_index=2,
        num_convs=2,
    ),
)
