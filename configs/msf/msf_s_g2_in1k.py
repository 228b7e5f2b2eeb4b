"""SimpleViT-S with mean-shift attention and projections in two groups, ImageNet-1K, 100 epochs at 224 x 224.

    bash tools/dist_train.sh configs/msf/msf_s_g2_in1k.py 8 --amp

Parameters: 20.19 M; 4.23 GMACs. Published (paper, ImageNet table): top-1 79.55, 20.14 M parameters
(without biases and norms).
"""

_base_ = '_base_/msf_in1k.py'

model = dict(backbone=dict(attention='msf', groups=2))
