"""PaCa-ViT small with 100, 81, 64, 49 clusters per stage, ImageNet-1K, 300 epochs at 224 x 224.

    bash tools/dist_train.sh configs/paca/paca_s_100_49_in1k.py 8 --amp

Parameters: 22.21 M; 5.34 GMACs. Published (paper, ImageNet table): 5.3 GFLOPs, top-1 82.87.
"""

_base_ = '_base_/paca_in1k.py'

model = dict(backbone=dict(arch='small', clusters=(100, 81, 64, 49)))
