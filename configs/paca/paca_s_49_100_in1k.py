"""PaCa-ViT small with 49, 64, 81, 100 clusters per stage, ImageNet-1K, 300 epochs at 224 x 224.

    bash tools/dist_train.sh configs/paca/paca_s_49_100_in1k.py 8 --amp

Parameters: 22.23 M; 5.27 GMACs. Published (paper, ImageNet table): 5.3 GFLOPs, top-1 82.98.
"""

_base_ = '_base_/paca_in1k.py'

model = dict(backbone=dict(arch='small', clusters=(49, 64, 81, 100)))
