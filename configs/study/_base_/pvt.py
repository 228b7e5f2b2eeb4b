"""PVTv2."""

network = dict(
    type='mmdense.Timm',
    model_name='pvt_v2_b0',
    embed_dims=(32, 64, 128, 128),
    depths=(1, 1, 2, 1),
    num_heads=(2, 4, 8, 8),
    mlp_ratios=(4, 4, 3, 3),
    drop_path_rate=0.0,
)
classifier = dict(out_indices=(3,))
pyramid = []
widths = [32, 64, 128, 128]
