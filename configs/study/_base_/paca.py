"""PaCa-ViT, as in configs/digits, whose parameters the other networks have within 10 %."""

network = dict(
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
classifier = dict(out_indices=(3,))
pyramid = []
widths = [32, 64, 128, 160]
