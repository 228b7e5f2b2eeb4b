"""The PaCa head, PaCa-ViT small with MLP clustering, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/paca/paca_head_paca_s_mlp_160k.py 8"""

_base_ = 'paca_head_paca_s_160k.py'
model = dict(backbone=dict(clustering='mlp', init_cfg=dict(checkpoint='mmdense://paca_s_mlp_in1k')))

# The published run names a layer that MLP clustering has not: its cluster layers learn as the rest.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'clustering.assign': dict(lr_mult=1.0)}))
