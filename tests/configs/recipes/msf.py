"""MSF."""

from recipes.common import IMAGENET, PACA_HEAD, dense

MSF = dict(
    IMAGENET,
    warm_up='10 epochs from 0.033',
    schedule='cosine from 10 to 100, min 0',
    length='100 epochs',
    amp=True,
    drop_path=0.0,
    norm_decay=1,
    bias_decay=1,
    flat_decay=1,
    clip_grad=1,
    repeats=3,
    augmentations='RandomResizedCrop RandomFlip '
    '[RandomGrayscale | Solarize | GaussianBlur] ColorJitter',
    test=[224, 224],
    rand_augment=None,
    erasing=None,
    jitter=(0.3, 0.3, 0.3, 0),
    mixup=0.2,
    cutmix=0.2,
)
RECIPES = {
    'msf/msf_s_*in1k': MSF,
    **dense('msf/*', drop_path=0.0),
    'msf/paca_head_*': dict(PACA_HEAD, drop_path=0.0),
}
