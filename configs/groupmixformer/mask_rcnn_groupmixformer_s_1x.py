"""Mask R-CNN, GroupMixFormer-S, COCO 1x.
bash tools/dist_train.sh configs/groupmixformer/mask_rcnn_groupmixformer_s_1x.py 8"""

_base_ = ['_base_/mask_rcnn_groupmixformer_s.py', '../_base_/adamw_1x.py']
