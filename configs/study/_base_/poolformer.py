"""PoolFormer."""

network = dict(
    type='mmpretrain.PoolFormer',
    arch=dict(
        layers=[1, 1, 3, 1],
        embed_dims=[32, 64, 128, 192],
        mlp_ratios=[4, 4, 4, 4],
        layer_scale_init_value=1e-5,
    ),
    out_indices=(0, 2, 4, 6),  # of its list of stages and of what is between them
)
classifier = dict(out_indices=(6,))
pyramid = []
widths = [32, 64, 128, 192]
