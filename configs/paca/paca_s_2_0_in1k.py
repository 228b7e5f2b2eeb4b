"""PaCa-ViT small with 2, 2, 2, 0 clusters per stage, ImageNet-1K, 300 epochs at 224 x 224.
bash tools/dist_train.sh configs/paca/paca_s_2_0_in1k.py 8 --amp"""

_base_ = 'paca_s_in1k.py'
model = dict(backbone=dict(clusters=(2, 2, 2, 0)))
