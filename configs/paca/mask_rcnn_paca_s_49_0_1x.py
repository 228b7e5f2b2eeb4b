"""Mask R-CNN, PaCa-ViT small with 49, 49, 49, 0 clusters per stage, COCO 1x.
bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_49_0_1x.py 8"""

_base_ = 'mask_rcnn_paca_s_1x.py'
model = dict(
    backbone=dict(clusters=(49, 49, 49, 0), init_cfg=dict(checkpoint='mmdense://paca_s_49_0_in1k'))
)
