"""PaCa-ViT small with 100 clusters in every stage, ImageNet-1K, 300 epochs at 224 x 224.

    bash tools/dist_train.sh configs/paca/paca_s_100_in1k.py 8 --amp

Parameters: 22.25 M; 5.57 GMACs. Published (paper, ImageNet table): 5.6 GFLOPs, top-1 83.05.
"""

_base_ = '_base_/paca_in1k.py'

model = dict(backbone=dict(arch='small', clusters=(100, 100, 100, 100)))
