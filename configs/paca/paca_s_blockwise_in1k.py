"""PaCa-ViT small with 100 clusters in every block, ImageNet-1K, 300 epochs at 224 x 224.

    bash tools/dist_train.sh configs/paca/paca_s_blockwise_in1k.py 8 --amp

Parameters: 24.19 M; 6.10 GMACs. Published (paper, ImageNet table): 6.1 GFLOPs, top-1 82.93.
"""

_base_ = '_base_/paca_in1k.py'

model = dict(backbone=dict(arch='small', clusters=(100, 100, 100, 100), clustering_interval=1))
