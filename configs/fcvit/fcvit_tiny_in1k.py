"""FCViT-tiny, ImageNet-1K, 300 epochs at 224 x 224.
bash tools/dist_train.sh configs/fcvit/fcvit_tiny_in1k.py 8"""

_base_ = '_base_/fcvit_in1k.py'
model = dict(backbone=dict(arch='tiny'), head=dict(in_channels=320))
