"""Mean-Shift Feature transformer: patches of 8 pixels; dense heads get a pyramid of four layers."""

network = dict(
    type='mmdense.MSFViT',
    arch=dict(embed_dims=128, num_layers=5, num_heads=4, feedforward_channels=512),
    patch_size=8,
    out_indices=(1, 2, 3, 4),
)
classifier = dict(out_indices=(4,))
pyramid = [
    dict(
        type='mmseg.Feature2Pyramid',
        embed_dim=128,
        rescales=[2, 1, 0.5, 0.25],
        norm_cfg=dict(type='BN'),
    )
]
widths = [128] * 4
