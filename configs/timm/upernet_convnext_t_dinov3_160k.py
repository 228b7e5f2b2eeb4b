"""UperNet, ConvNeXt-T with DINOv3's weights, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/timm/upernet_convnext_t_dinov3_160k.py 8"""

_base_ = ['../_base_/upernet.py', '_base_/convnext_t_dinov3.py']
model = dict(
    backbone=_base_.backbone,
    decode_head=dict(in_channels=_base_.channels),
    auxiliary_head=dict(in_channels=_base_.channels[2]),
)
