"""GroupMixFormer-L, ImageNet-1K, 300 epochs at 224 x 224.

    bash tools/dist_train.sh configs/groupmixformer/groupmixformer_l_in1k.py 8

Parameters: 71.83 M; 38.07 GMACs. Published (paper, ImageNet table): 36.1 GFLOPs, top-1 85.0, 70.3 M
parameters; the released config of this size builds the network counted here.
"""

_base_ = '_base_/groupmixformer_in1k.py'

model = dict(
    backbone=dict(arch='large', drop_path_rate=0.1),
    head=dict(in_channels=480),
)
