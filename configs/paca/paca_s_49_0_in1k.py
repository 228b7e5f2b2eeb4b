"""PaCa-ViT small with 49, 49, 49, 0 clusters per stage, ImageNet-1K, 300 epochs at 224 x 224.

    bash tools/dist_train.sh configs/paca/paca_s_49_0_in1k.py 8 --amp

Parameters: 22.01 M; 5.05 GMACs. Published (paper, ImageNet table): 5.0 GFLOPs, top-1 82.95.
"""

_base_ = '_base_/paca_in1k.py'

model = dict(backbone=dict(arch='small', clusters=(49, 49, 49, 0)))
