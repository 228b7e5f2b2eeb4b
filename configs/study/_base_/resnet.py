"""ResNet-18 with 20 channels for its 64."""

network = dict(
    type='mmpretrain.ResNet',
    depth=18,
    base_channels=20,
    stem_channels=20,
    out_indices=(0, 1, 2, 3),
)
classifier = dict(out_indices=(3,))
pyramid = []
widths = [20, 40, 80, 160]
