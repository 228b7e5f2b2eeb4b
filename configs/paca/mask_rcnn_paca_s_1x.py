"""Mask R-CNN, PaCa-ViT small with convolutional clustering, COCO 1x.
bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_1x.py 8"""

_base_ = ['_base_/mask_rcnn_paca_s.py', '../_base_/adamw_1x.py']
