"""ConvNeXt-T with DINOv3's weights, which timm fetches by the name."""

backbone = dict(
    type='mmdense.Timm',
    model_name='convnext_tiny.dinov3_lvd1689m',
    pretrained=True,
    drop_path_rate=0.1,
    init_cfg=None,
)
channels = [96, 192, 384, 768]
