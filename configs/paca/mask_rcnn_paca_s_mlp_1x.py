"""Mask R-CNN, PaCa-ViT small with MLP clustering, COCO 1x.
bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_mlp_1x.py 8"""

_base_ = 'mask_rcnn_paca_s_1x.py'
model = dict(backbone=dict(clustering='mlp', init_cfg=dict(checkpoint='mmdense://paca_s_mlp_in1k')))
