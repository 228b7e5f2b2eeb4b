"""GroupMixFormer-B, ImageNet-1K, 300 epochs at 224 x 224.
bash tools/dist_train.sh configs/groupmixformer/groupmixformer_b_in1k.py 8"""

_base_ = '_base_/groupmixformer_in1k.py'
model = dict(backbone=dict(arch='base', drop_path_rate=0.5), head=dict(in_channels=480))
