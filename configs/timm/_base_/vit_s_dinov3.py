"""ViT-S/16 with DINOv3's weights, which timm fetches by the name, and a pyramid of four maps."""

backbone = dict(
    type='mmdense.Timm',
    model_name='vit_small_patch16_dinov3.lvd1689m',
    pretrained=True,
    drop_path_rate=0.1,
    init_cfg=None,
)
channels = [384] * 4
