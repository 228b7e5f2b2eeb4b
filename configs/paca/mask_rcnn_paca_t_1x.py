"""Mask R-CNN, PaCa-ViT tiny with convolutional clustering, COCO 1x.
bash tools/dist_train.sh configs/paca/mask_rcnn_paca_t_1x.py 8"""

_base_ = 'mask_rcnn_paca_s_1x.py'
model = dict(backbone=dict(arch='tiny', init_cfg=dict(checkpoint='mmdense://paca_t_in1k')))
