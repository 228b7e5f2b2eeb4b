"""FCViT-b24, ImageNet-1K, 300 epochs at 224 x 224.

    bash tools/dist_train.sh configs/fcvit/fcvit_b24_in1k.py 8

Parameters: 26.96 M. Published (paper, ImageNet table): top-1 82.5, 25.7 M parameters
(of 2^20).
"""

_base_ = '_base_/fcvit_in1k.py'

model = dict(
    backbone=dict(arch='b24', drop_path_rate=0.1),
    head=dict(in_channels=512),
)
