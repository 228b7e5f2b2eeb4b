"""PaCa-ViT small with 2, 2, 2, 0 clusters per stage, ImageNet-1K, 300 epochs at 224 x 224.

    bash tools/dist_train.sh configs/paca/paca_s_2_0_in1k.py 8 --amp

Parameters: 21.98 M; 4.64 GMACs. Published (paper, ImageNet table): 4.7 GFLOPs, top-1 82.28.
"""

_base_ = '_base_/paca_in1k.py'

model = dict(backbone=dict(arch='small', clusters=(2, 2, 2, 0)))
