"""Mask R-CNN, PaCa-ViT small with 49, 64, 81, 100 clusters per stage, COCO 1x.
bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_49_100_1x.py 8"""

_base_ = 'mask_rcnn_paca_s_1x.py'
model = dict(
    backbone=dict(
        clusters=(49, 64, 81, 100), init_cfg=dict(checkpoint='mmdense://paca_s_49_100_in1k')
    )
)
