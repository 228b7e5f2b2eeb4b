"""Mask R-CNN, SimpleViT-S with mean-shift attention and a feature pyramid, COCO 3x with multi-scale training.
bash tools/dist_train.sh configs/msf/mask_rcnn_msf_s_3x.py 8"""

_base_ = ['_base_/mask_rcnn_msf_s.py', '../_base_/adamw_3x.py']
