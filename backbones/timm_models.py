"""The same backbones behind ``timm.create_model``: ``paca_small``, ``fcvit_b12``, ...

``import mmdense`` registers the names. A model is the one of its ``configs/*/*_in1k.py``: the
classifier has the names of mmpretrain's, so a converted checkpoint fits both.

    timm.create_model('paca_small', checkpoint_path='checkpoints/paca_s_in1k.pth')
    timm.create_model('paca_small', features_only=True, out_indices=(1, 2, 3))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmengine.config import Config
from mmengine.registry import MODELS
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import ClassifierHead
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import FeatureInfo
from torch import Tensor, nn

from ..engine.checkpoint import load_pretrained
from ..engine.convert import config_root

# timm's name -> config, and how much of the shorter side the recipe's test crop takes
VARIANTS = {
    f'paca_{size}{option}': (f'paca/paca_{letter}{option}_in1k.py', 0.9)
    for letter, size, options in (
        ('t', 'tiny', ('', '_teacher')),
        (
            's',
            'small',
            ('', '_mlp', '_teacher', '_2_0', '_49_0', '_49_100', '_100_49', '_100', '_blockwise'),
        ),
        ('b', 'base', ('', '_teacher')),
    )
    for option in options
}
VARIANTS |= {
    f'groupmixformer_{size}': (f'groupmixformer/groupmixformer_{size[0]}_in1k.py', 0.875)
    for size in ('miny', 'tiny', 'small', 'base', 'large')
}
VARIANTS |= {
    f'fcvit_{size}': (f'fcvit/fcvit_{size}_in1k.py', crop)
    for size, crop in (('tiny', 0.9), ('b12', 0.9), ('b24', 0.95), ('b48', 0.95))
}
VARIANTS |= {
    f'msf_small{option}': (f'msf/msf_s{option}_in1k.py', 1.0)
    for option in ('', '_g2', '_orig', '_orig_g2')
}

default_cfgs = generate_default_cfgs(
    {
        name: dict(
            num_classes=1000,
            input_size=(3, 224, 224),
            pool_size=None,
            crop_pct=crop,
            interpolation='bicubic',
            mean=IMAGENET_DEFAULT_MEAN,
            std=IMAGENET_DEFAULT_STD,
            classifier='head.fc',
            license='apache-2.0',
        )
        for name, (_, crop) in VARIANTS.items()
    }
)


def get_backbone(name: str, in_chans: int, drop_path_rate: float | None, options: dict) -> dict:
    """The config of a variant's backbone, with timm's names for what the user changes."""
    backbone = Config.fromfile(config_root() / VARIANTS[name][0]).model.backbone.to_dict()
    backbone.update(options, in_channels=in_chans)
    if drop_path_rate is not None:
        backbone['drop_path_rate'] = drop_path_rate
    return backbone


def describe_features(backbone: nn.Module) -> list[dict]:
    """Channels and stride of every map that the backbone can return."""
    if hasattr(backbone, 'layers'):  # a plain transformer
        patch = backbone.patch_embed.patch_size
        dim = backbone.patch_embed.proj.out_features
        return [
            dict(num_chs=dim, reduction=patch, module=f'layers.{i}')
            for i in range(len(backbone.layers))
        ]
    dims = backbone.embed_dims
    return [
        dict(num_chs=dim, reduction=4 * 2**i, module=f'stages.{i}') for i, dim in enumerate(dims)
    ]


class TimmClassifier(nn.Module):
    """A backbone and timm's classifier head.

    Args:
        config: A key of ``VARIANTS`` (timm's own argument is called variant).
        num_classes: Classes; 0 for none.
        in_chans: Channels of the image.
        global_pool: 'avg', or any of timm's poolings.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth; by default the recipe's.
        options: Of the backbone.
    """

    def __init__(
        self,
        config: str,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        drop_path_rate: float | None = None,
        **options: object,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = MODELS.build(get_backbone(config, in_chans, drop_path_rate, options))
        self.backbone.init_weights()
        self.feature_info = describe_features(self.backbone)
        self.num_features = self.head_hidden_size = self.feature_info[-1]['num_chs']
        self.head = ClassifierHead(
            self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate
        )

    def forward_features(self, x: Tensor) -> Tensor:
        """Image (B, C, H, W) -> the last map; MSF pools before its norm, so (B, D, 1, 1)."""
        x = self.backbone(x)[-1]
        return x if x.dim() == 4 else x[:, :, None, None]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map -> logits (B, num_classes), or what the classifier sees."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a fresh one; 0 classes for none."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass to save memory."""
        self.backbone.with_cp = enable


class TimmFeatures(nn.Module):
    """A backbone whose ``forward`` returns a list of maps, with timm's ``feature_info``."""

    def __init__(
        self,
        variant: str,
        out_indices: Sequence[int] | None = None,
        in_chans: int = 3,
        drop_path_rate: float | None = None,
        **options: object,
    ) -> None:
        super().__init__()
        backbone = get_backbone(variant, in_chans, drop_path_rate, options)
        for norm_of_classifier in ('final_norm', 'out_type'):
            backbone.pop(norm_of_classifier, None)
        plain = backbone['type'] == 'mmdense.MSFViT'
        backbone['out_indices'] = out_indices or ((2, 5, 8, 11) if plain else (0, 1, 2, 3))
        self.backbone = MODELS.build(backbone)
        self.backbone.init_weights()
        self.feature_info = FeatureInfo(describe_features(self.backbone), self.backbone.out_indices)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Image (B, C, H, W) -> one map per out index."""
        return list(self.backbone(x))


def create(
    name: str,
    pretrained: bool = False,
    features_only: bool = False,
    pretrained_cfg: dict | None = None,
    pretrained_cfg_overlay: dict | None = None,
    **kwargs: object,
) -> nn.Module:
    """What timm calls for a registered name.

    Raises:
        RuntimeError: For ``pretrained=True`` without a file: the authors' are to be converted.
    """
    file = (pretrained_cfg_overlay or {}).get('file')
    if pretrained and not file:
        raise RuntimeError(
            f'{name} has no weights to download; convert the published file with '
            "tools/convert_checkpoint.py and pass pretrained_cfg_overlay=dict(file='...')"
        )
    if features_only:
        for unused in ('num_classes', 'global_pool', 'drop_rate', 'cache_dir', 'feature_cls'):
            kwargs.pop(unused, None)
        model = TimmFeatures(name, **kwargs)
        model.pretrained_cfg = model.default_cfg = default_cfgs[name].default.to_dict()
        if pretrained:
            backbone = model.backbone
            load_pretrained(
                backbone,
                file,
                prefix='backbone.',
                may_change_shape=backbone.may_change_shape,
                may_be_absent=backbone.may_be_absent,
            )
        return model
    return build_model_with_cfg(
        TimmClassifier,
        name,
        pretrained,
        pretrained_cfg=pretrained_cfg,
        pretrained_cfg_overlay=pretrained_cfg_overlay,
        config=name,
        **kwargs,
    )


def _entry_point(name: str) -> Callable[..., nn.Module]:
    def entry(pretrained: bool = False, **kwargs: object) -> nn.Module:
        return create(name, pretrained, **kwargs)

    entry.__name__, entry.__module__ = name, __name__
    return entry


for _name in VARIANTS:
    register_model(_entry_point(_name))
