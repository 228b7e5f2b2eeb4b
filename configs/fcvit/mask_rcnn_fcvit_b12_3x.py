"""Mask R-CNN, FCViT-b12, COCO 3x with multi-scale training.
bash tools/dist_train.sh configs/fcvit/mask_rcnn_fcvit_b12_3x.py 8"""

_base_ = ['_base_/mask_rcnn_fcvit_b12.py', '../_base_/adamw_3x.py']

# The optimizer settings of the published 1x run.
optim_wrapper = dict(optimizer=dict(lr=2e-4, weight_decay=1e-4), paramwise_cfg=dict(_delete_=True))
