"""What recipes share."""

COMMON = dict(
    optimizer='AdamW',
    betas=(0.9, 0.999),
    norm_decay=0,  # factors on the weight decay of norms, biases and all vectors
    bias_decay=1,
    flat_decay=1,
    mults={},  # of parameters with a name: factors on (learning rate, weight decay)
    clip_grad=None,
    amp=False,
    repeats=1,  # of an image in an epoch
    flip=0.5,
    interpolation=None,
    rand_augment=None,
    erasing=None,
    jitter=None,  # of brightness, contrast, saturation, hue
    mixup=None,
    cutmix=None,
    smoothing=None,
    layer_scale=None,
)

# ImageNet: crops of 224 x 224; of a shorter side resized first when testing.
IMAGENET = dict(
    COMMON,
    lr=1e-3,
    weight_decay=0.05,
    bias_decay=0,
    flat_decay=0,
    length='300 epochs',
    augmentations='RandomResizedCrop RandomFlip RandAugment RandomErasing',
    train=[224],
    test=[248, 224],
    interpolation='bicubic',
    rand_augment='rand-m9-mstd0.5-inc1',
    erasing=0.25,
    mixup=0.8,
    cutmix=1.0,
    smoothing=0.1,
    batch=128,
    base_batch=1024,
)

# COCO: PaCa-ViT's recipe for all, but for FCViT's own run.
SHORTER_SIDES = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
COCO = dict(
    COMMON,
    lr=1e-4,
    weight_decay=0.05,
    warm_up='500 iterations from 0.001',
    schedule='steps at 8, 11 of 12 by 0.1',
    length='12 epochs',
    batch=2,
    base_batch=16,
    augmentations='RandomFlip '
    '[RandomChoiceResize | RandomChoiceResize RandomCrop RandomChoiceResize]',
    train=[SHORTER_SIDES, [400, 500, 600], (384, 600), SHORTER_SIDES],
    test=[(1333, 800)],
)
THREE_TIMES = dict(length='36 epochs', schedule='steps at 27, 33 of 36 by 0.1')
ONE_SCALE = dict(augmentations='Resize RandomFlip', train=[(1333, 800)])

# ADE20K: the recipes of PaCa-ViT, of FCViT (Semantic FPN) and of MMSegmentation (Mask2Former).
ADE20K = dict(
    COMMON,
    augmentations='RandomResize RandomCrop RandomFlip PhotoMetricDistortion',
    train=[(2048, 512, 0.5, 2.0), (512, 512)],
    test=[(2048, 512)],
    length='160000 iterations',
    batch=2,
    base_batch=16,
)
UPERNET = dict(
    ADE20K,
    lr=6e-5,
    weight_decay=0.01,
    warm_up='1500 iterations from 1e-06',
    schedule='poly 1 from 1500 to 160000, min 0',
)
TEN_TIMES = {'decode_head': (10, 1), 'clustering.assign': (10, 1)}
PACA_HEAD = dict(UPERNET, mults=TEN_TIMES)
SEM_FPN = dict(
    ADE20K,
    lr=2e-4,
    weight_decay=1e-4,
    norm_decay=1,
    warm_up=None,
    schedule='poly 0.9 from 0 to 40000, min 0',
    length='40000 iterations',
    batch=4,
    base_batch=32,
)
QUERIES = {key: (1, 0) for key in ('query_embed', 'query_feat', 'level_embed')}
MASK2FORMER = dict(
    ADE20K,
    lr=1e-4,
    weight_decay=0.05,
    mults={'backbone': (0.1, 1), **QUERIES},
    clip_grad=0.01,
    warm_up=None,
    schedule='poly 0.9 from 0 to 160000, min 0',
    augmentations='RandomChoiceResize RandomCrop RandomFlip PhotoMetricDistortion',
    train=[
        [256, 307, 358, 409, 460, 512, 563, 614, 665, 716, 768, 819, 870, 921, 972, 1024],
        (512, 512),
    ],
)
DENSE = {
    'mask_rcnn_*_1x': COCO,
    'mask_rcnn_*_3x': dict(COCO, **THREE_TIMES),
    'cascade_mask_rcnn_*_1x': COCO,
    'retinanet_*_1x': dict(COCO, **ONE_SCALE),
    'upernet_*_160k': UPERNET,
    'sem_fpn_*_40k': SEM_FPN,
    'mask2former_*_160k': MASK2FORMER,
}


def dense(pattern: str, rows: dict[str, dict] = DENSE, **changes: object) -> dict[str, dict]:
    """The dense rows of a family: ``pattern`` is ``family/name``."""
    family, name = pattern.split('/')
    return {f'{family}/{key.replace("*", name)}': dict(rows[key], **changes) for key in rows}
