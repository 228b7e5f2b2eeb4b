"""Mask R-CNN, FCViT-b24, COCO 1x.

    bash tools/dist_train.sh configs/fcvit/mask_rcnn_fcvit_b24_1x.py 8

Parameters: 46.62 M; 273.3 GMACs at 800 x 1280. Published (the authors' repository): 43.1 M, box AP
44.1 (AP50 65.4, AP75 48.4), mask AP 39.9 (AP50 62.4, AP75 42.7).
"""

_base_ = 'mask_rcnn_fcvit_b12_1x.py'

model = dict(
    backbone=dict(arch='b24', init_cfg=dict(checkpoint='checkpoints/fcvit_b24_in1k.pth')),
)
