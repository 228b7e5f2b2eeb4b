"""FCViT-b12, ImageNet-1K, 300 epochs at 224 x 224.
bash tools/dist_train.sh configs/fcvit/fcvit_b12_in1k.py 8"""

_base_ = '_base_/fcvit_in1k.py'
model = dict(backbone=dict(arch='b12'))
