"""SimpleViT-S with mean-shift attention, ImageNet-1K, 100 epochs at 224 x 224.
bash tools/dist_train.sh configs/msf/msf_s_in1k.py 8 --amp"""

_base_ = '_base_/msf_in1k.py'
model = dict(backbone=dict(attention='msf'))
