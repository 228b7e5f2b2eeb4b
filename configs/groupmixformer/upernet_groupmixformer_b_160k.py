"""UperNet, GroupMixFormer-B, ADE20K, 160k iterations.

    bash tools/dist_train.sh configs/groupmixformer/upernet_groupmixformer_b_160k.py 8

Parameters: 75.75 M; 303.0 GMACs at 512 x 512. Published (paper): mIoU 51.2 (single scale). The
authors released no config; the recipe is that of configs/_base_/upernet.py.
"""

_base_ = '../_base_/upernet.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdense.GroupMixFormer',
        arch='base',
        drop_path_rate=0.5,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='checkpoints/groupmixformer_b_in1k.pth',
            prefix='backbone.',
        ),
    ),
    decode_head=dict(in_channels=[200, 240, 320, 480]),
    auxiliary_head=dict(in_channels=320),
)
