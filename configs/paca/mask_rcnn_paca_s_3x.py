"""Mask R-CNN, PaCa-ViT small with convolutional clustering, COCO 3x with multi-scale training.
bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_3x.py 8"""

_base_ = ['_base_/mask_rcnn_paca_s.py', '../_base_/adamw_3x.py']
