"""Mask R-CNN, GroupMixFormer-S, COCO 3x with multi-scale training.
bash tools/dist_train.sh configs/groupmixformer/mask_rcnn_groupmixformer_s_3x.py 8"""

_base_ = ['_base_/mask_rcnn_groupmixformer_s.py', '../_base_/adamw_3x.py']
