"""PaCa-ViT small with convolutional clustering, ImageNet-1K, 300 epochs at 224 x 224.
bash tools/dist_train.sh configs/paca/paca_s_in1k.py 8 --amp"""

_base_ = '_base_/paca_in1k.py'
model = dict(backbone=dict(arch='small'))
