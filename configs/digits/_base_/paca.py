"""The backbone of every digit-scenes config: a PaCa-ViT that two CPU cores can train."""

backbone = dict(
    type='mmdense.PaCaViT',
    arch=dict(
        embed_dims=(32, 64, 128, 192),
        num_heads=(1, 2, 4, 8),
        depths=(1, 2, 3, 1),
        mlp_ratios=(4, 4, 4, 4),
    ),
    clusters=(49, 49, 49, 0),
    drop_path_rate=0.05,
)
embed_dims = (32, 64, 128, 192)
checkpoint = 'work_dirs/paca_digits/last.pth'
