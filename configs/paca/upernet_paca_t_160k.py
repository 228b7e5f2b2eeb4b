"""UperNet, PaCa-ViT tiny with convolutional clustering, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/paca/upernet_paca_t_160k.py 8"""

_base_ = 'upernet_paca_s_160k.py'
model = dict(backbone=dict(arch='tiny', init_cfg=dict(checkpoint='mmdense://paca_t_in1k')))
