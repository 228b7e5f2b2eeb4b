"""The backbone of every digit-scenes config: a PaCa-ViT that two CPU cores can train."""

backbone = dict(
    type='mmdense.PaCaViT',
    arch=dict(
        embed_dims=(32, 64, 128, 160),
        num_heads=(1, 2, 4, 5),
        depths=(1, 1, 2, 1),
        mlp_ratios=(2, 2, 4, 4),
    ),
    clusters=(25, 25, 25, 0),
    drop_path_rate=0.0,
)
embed_dims = [32, 64, 128, 160]
checkpoint = 'work_dirs/paca_digits/epoch_8.pth'  # what paca_digits.py ends with
