"""Swin: windows of 4 x 4, for maps from 12 x 12 on."""

network = dict(
    type='mmpretrain.SwinTransformer',
    arch=dict(embed_dims=28, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]),
    window_size=4,
    pad_small_map=True,
    drop_path_rate=0.0,
    out_indices=(0, 1, 2, 3),
)
classifier = dict(out_indices=(3,))
pyramid = []
widths = [28, 56, 112, 224]
