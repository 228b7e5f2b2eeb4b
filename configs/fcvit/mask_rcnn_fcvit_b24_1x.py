"""Mask R-CNN, FCViT-b24, COCO 1x.
bash tools/dist_train.sh configs/fcvit/mask_rcnn_fcvit_b24_1x.py 8"""

_base_ = 'mask_rcnn_fcvit_b12_1x.py'
model = dict(backbone=dict(arch='b24', init_cfg=dict(checkpoint='mmdense://fcvit_b24_in1k')))
