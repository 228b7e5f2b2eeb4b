"""PaCa-ViT tiny with convolutional clustering, ImageNet-1K, 300 epochs at 224 x 224.

    bash tools/dist_train.sh configs/paca/paca_t_in1k.py 8 --amp

Parameters: 12.20 M; 3.22 GMACs. Published (paper, ImageNet table): 3.2 GFLOPs, top-1 80.9.
"""

_base_ = '_base_/paca_in1k.py'

model = dict(backbone=dict(arch='tiny'))
