"""PaCa-ViT small with MLP clustering, ImageNet-1K, 300 epochs at 224 x 224.

    bash tools/dist_train.sh configs/paca/paca_s_mlp_in1k.py 8 --amp

Parameters: 22.64 M; 5.86 GMACs. Published (paper, ImageNet table): 5.9 GFLOPs, top-1 83.13.
"""

_base_ = '_base_/paca_in1k.py'

model = dict(backbone=dict(arch='small', clustering='mlp'))
