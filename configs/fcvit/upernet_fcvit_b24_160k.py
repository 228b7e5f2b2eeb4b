"""UperNet, FCViT-b24, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/fcvit/upernet_fcvit_b24_160k.py 8"""

_base_ = 'upernet_fcvit_b12_160k.py'
model = dict(backbone=dict(arch='b24', init_cfg=dict(checkpoint='mmdense://fcvit_b24_in1k')))
