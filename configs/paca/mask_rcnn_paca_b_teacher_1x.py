"""Mask R-CNN, PaCa-ViT base with clusters from a teacher, COCO 1x.
bash tools/dist_train.sh configs/paca/mask_rcnn_paca_b_teacher_1x.py 8"""

_base_ = 'mask_rcnn_paca_b_1x.py'
model = dict(
    backbone=dict(arch='base_teacher', init_cfg=dict(checkpoint='mmdense://paca_b_teacher_in1k'))
)
