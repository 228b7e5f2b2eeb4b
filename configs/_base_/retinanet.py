"""RetinaNet on COCO: model, AdamW, 12 epochs of images resized to a shorter side of 800."""

_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'adamw_1x.py',
    'mmdet::_base_/default_runtime.py',
]

# Strides 8, 16, 32 of the backbone; the pyramid adds two more. The stride-4 map is not computed
# to be thrown away.
model = dict(neck=dict(start_level=0))
