"""SimpleViT-S with ordinary attention, ImageNet-1K, 100 epochs at 224 x 224.

    bash tools/dist_train.sh configs/msf/msf_s_orig_in1k.py 8 --amp

Parameters: 21.96 M; 4.57 GMACs. Published (paper, ImageNet table): top-1 78.98, 21.91 M parameters
(without biases and norms).
"""

_base_ = '_base_/msf_in1k.py'

model = dict(backbone=dict(attention='orig'))
