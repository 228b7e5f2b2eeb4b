"""Mask R-CNN, GroupMixFormer-S, COCO 3x with multi-scale training.

    bash tools/dist_train.sh configs/groupmixformer/mask_rcnn_groupmixformer_s_3x.py 8

Parameters: 42.23 M; 275.2 GMACs at 800 x 1280. The authors released no config: the 1x recipe for 36
epochs, with steps at 27 and 33, on images of several scales.
"""

_base_ = 'mask_rcnn_groupmixformer_s_1x.py'

train_cfg = dict(max_epochs=36)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=36, by_epoch=True, milestones=[27, 33], gamma=0.1),
]
