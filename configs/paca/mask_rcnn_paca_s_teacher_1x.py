"""Mask R-CNN, PaCa-ViT small with clusters from a teacher, COCO 1x.
bash tools/dist_train.sh configs/paca/mask_rcnn_paca_s_teacher_1x.py 8"""

_base_ = 'mask_rcnn_paca_s_1x.py'
model = dict(
    backbone=dict(arch='small_teacher', init_cfg=dict(checkpoint='mmdense://paca_s_teacher_in1k'))
)
