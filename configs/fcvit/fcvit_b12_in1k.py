"""FCViT-b12, ImageNet-1K, 300 epochs at 224 x 224.

    bash tools/dist_train.sh configs/fcvit/fcvit_b12_in1k.py 8

Parameters: 14.70 M; 2.65 GMACs. Published (paper, ImageNet table): top-1 80.9, 14 M parameters (of
2^20).
"""

_base_ = '_base_/fcvit_in1k.py'

model = dict(
    backbone=dict(arch='b12', drop_path_rate=0.1),
    head=dict(in_channels=512),
)
