"""ConvNeXt."""

network = dict(
    type='mmpretrain.ConvNeXt',
    arch=dict(depths=[1, 1, 3, 1], channels=[32, 64, 128, 224]),
    gap_before_final_norm=False,
    out_indices=(0, 1, 2, 3),
)
classifier = dict(out_indices=(3,))
pyramid = []
widths = [32, 64, 128, 224]
