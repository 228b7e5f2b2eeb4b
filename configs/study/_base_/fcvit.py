"""FCViT."""

network = dict(
    type='mmdense.FCViT',
    arch=dict(embed_dims=(32, 64, 128, 160), depths=(1, 1, 2, 1), mlp_ratios=(4, 4, 4, 4)),
    drop_path_rate=0.0,
)
classifier = dict(out_indices=(3,))
pyramid = []
widths = [32, 64, 128, 160]
