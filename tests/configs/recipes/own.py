"""Data of a user's own: ``--data`` settles batches, rates and epochs."""

from recipes.digits import DIGITS

OWN = dict(
    DIGITS, flip=0.5, augmentations='RandomFlip RandomResize RandomCrop PhotoMetricDistortion'
)
RECIPES = {
    'own/*_rcnn_paca_own': dict(
        OWN,
        schedule='cosine from 0 to 3, min 1e-05',
        length='3 epochs',
        train=[(320, 320, 0.8, 1.25), (320, 320)],
        test=[(320, 320)],
    ),
    'own/sem_fpn_paca_own': dict(
        OWN,
        schedule='cosine from 0 to 24, min 1e-05',
        length='24 epochs',
        augmentations='RandomResize RandomCrop RandomFlip PhotoMetricDistortion',
        train=[(512, 256, 0.8, 1.5), (256, 256)],
        test=[(512, 256)],
    ),
    'own/paca_own': dict(
        OWN,
        warm_up='1 epochs from 0.01',
        schedule='cosine from 1 to 8, min 1e-05',
        length='8 epochs',
        batch=32,
        base_batch=32,
        augmentations='RandomResizedCrop RandomFlip ColorJitter',
        train=[128],
        test=[144, 128],
        jitter=(0.2, 0.2, 0.2, 0),
        smoothing=0.1,
    ),
}
