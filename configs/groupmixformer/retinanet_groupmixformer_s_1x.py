"""RetinaNet, GroupMixFormer-S, COCO 1x.

    bash tools/dist_train.sh configs/groupmixformer/retinanet_groupmixformer_s_1x.py 8

Parameters: 31.87 M; 256.2 GMACs at 800 x 1280. The authors released no config; the recipe is that
of configs/_base_/retinanet.py.
"""

_base_ = '../_base_/retinanet.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.GroupMixFormer',
        arch='small',
        drop_path_rate=0.2,
        out_indices=(1, 2, 3),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='checkpoints/groupmixformer_s_in1k.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(in_channels=[160, 320, 320]),
)
