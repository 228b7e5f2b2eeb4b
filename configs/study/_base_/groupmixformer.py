"""GroupMixFormer: channels are multiples of 40, five segments times eight heads."""

network = dict(
    type='mmdense.GroupMixFormer',
    arch=dict(embed_dims=(40, 80, 160, 160), depths=(1, 1, 2, 1), mlp_ratios=(4, 4, 4, 2)),
    drop_path_rate=0.0,
)
classifier = dict(out_indices=(3,), final_norm=True)
pyramid = []
widths = [40, 80, 160, 160]
