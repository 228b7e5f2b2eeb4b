"""FCViT-b24, ImageNet-1K, 300 epochs at 224 x 224.
bash tools/dist_train.sh configs/fcvit/fcvit_b24_in1k.py 8"""

_base_ = '_base_/fcvit_in1k.py'
model = dict(backbone=dict(arch='b24'))

# A crop of 0.95 of the shorter side.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=236, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
