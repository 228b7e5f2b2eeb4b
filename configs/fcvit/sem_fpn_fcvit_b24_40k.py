"""Semantic FPN, FCViT-b24, ADE20K, 40k iterations.
bash tools/dist_train.sh configs/fcvit/sem_fpn_fcvit_b24_40k.py 8"""

_base_ = 'sem_fpn_fcvit_b12_40k.py'
model = dict(backbone=dict(arch='b24', init_cfg=dict(checkpoint='mmdense://fcvit_b24_in1k')))
