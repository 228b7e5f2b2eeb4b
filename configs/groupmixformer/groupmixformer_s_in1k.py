"""GroupMixFormer-S, ImageNet-1K, 300 epochs at 224 x 224.

    bash tools/dist_train.sh configs/groupmixformer/groupmixformer_s_in1k.py 8

Parameters: 22.42 M; 5.13 GMACs. Published (paper, ImageNet table): 5.2 GFLOPs, top-1 83.4.
"""

_base_ = '_base_/groupmixformer_in1k.py'

model = dict(
    backbone=dict(arch='small', drop_path_rate=0.2),
    head=dict(in_channels=320),
)
