"""Mask R-CNN, SimpleViT-S with mean-shift attention and a feature pyramid, COCO 1x.
bash tools/dist_train.sh configs/msf/mask_rcnn_msf_s_1x.py 8"""

_base_ = ['_base_/mask_rcnn_msf_s.py', '../_base_/adamw_1x.py']
