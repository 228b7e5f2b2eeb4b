"""The PaCa head, PaCa-ViT small, pretrained with 100 clusters per stage, ADE20K, 160k iterations.
bash tools/dist_train.sh configs/paca/paca_head_paca_s_100_160k.py 8"""

_base_ = 'paca_head_paca_s_160k.py'
model = dict(
    backbone=dict(
        clusters=(200, 200, 200, 200), init_cfg=dict(checkpoint='mmdense://paca_s_100_in1k')
    )
)
