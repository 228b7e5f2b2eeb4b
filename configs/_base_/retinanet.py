"""RetinaNet on COCO: model and images resized to a shorter side of 800. The schedule is adamw_1x.py."""

_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/default_runtime.py',
]
model = dict(
    # In place of the toolbox's ResNet: a config names the backbone and its checkpoint.
    backbone=dict(_delete_=True, init_cfg=dict(type='Pretrained', prefix='backbone.')),
    # Strides 8, 16, 32 of the backbone; the pyramid adds two more. The stride-4 map is not computed
    # to be thrown away.
    neck=dict(start_level=0),
)
