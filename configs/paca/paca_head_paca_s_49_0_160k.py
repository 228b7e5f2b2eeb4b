"""The PaCa head, PaCa-ViT small, pretrained with 49, 49, 49, 0 clusters, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/paca/paca_head_paca_s_49_0_160k.py 8"""

_base_ = 'paca_head_paca_s_160k.py'
model = dict(backbone=dict(init_cfg=dict(checkpoint='mmdense://paca_s_49_0_in1k')))
