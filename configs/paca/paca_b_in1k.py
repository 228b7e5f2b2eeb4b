"""PaCa-ViT base with convolutional clustering, ImageNet-1K, 300 epochs at 224 x 224.
bash tools/dist_train.sh configs/paca/paca_b_in1k.py 8 --amp"""

_base_ = '_base_/paca_in1k.py'
model = dict(backbone=dict(arch='base', drop_path_rate=0.5), head=dict(in_channels=512))
