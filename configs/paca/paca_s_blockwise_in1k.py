"""PaCa-ViT small with 100 clusters in every block, ImageNet-1K, 300 epochs at 224 x 224.
bash tools/dist_train.sh configs/paca/paca_s_blockwise_in1k.py 8 --amp"""

_base_ = 'paca_s_100_in1k.py'
model = dict(backbone=dict(clustering_interval=1))
