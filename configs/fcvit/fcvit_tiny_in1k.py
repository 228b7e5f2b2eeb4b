"""FCViT-tiny, ImageNet-1K, 300 epochs at 224 x 224.

    bash tools/dist_train.sh configs/fcvit/fcvit_tiny_in1k.py 8

Parameters: 4.78 M; 0.90 GMACs. Published (paper, ImageNet table): top-1 74.9, 4.6 M parameters (of
2^20).
"""

_base_ = '_base_/fcvit_in1k.py'

model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0.1),
    head=dict(in_channels=320),
)
