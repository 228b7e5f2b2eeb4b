"""FCViT-b48, ImageNet-1K, 300 epochs at 224 x 224.
bash tools/dist_train.sh configs/fcvit/fcvit_b48_in1k.py 8"""

_base_ = 'fcvit_b24_in1k.py'
model = dict(backbone=dict(arch='b48', drop_path_rate=0.2))
