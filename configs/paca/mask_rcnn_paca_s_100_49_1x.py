"""Mask R-CNN, PaCa-ViT small with 100, 81, 64, 49 clusters per stage, COCO 1x.
bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_100_49_1x.py 8"""

_base_ = 'mask_rcnn_paca_s_1x.py'
model = dict(
    backbone=dict(
        clusters=(100, 81, 64, 49), init_cfg=dict(checkpoint='mmdense://paca_s_100_49_in1k')
    )
)
