"""PaCa-ViT."""

from recipes.common import IMAGENET, PACA_HEAD, TEN_TIMES, dense

PACA = dict(
    IMAGENET,  # 5e-4 per 512 images
    warm_up='5 epochs from 0.001',
    schedule='cosine from 5 to 300, min 1e-05',
    amp=True,
    drop_path=0.1,
)
RECIPES = {
    'paca/paca_[ts]_*in1k': PACA,
    'paca/paca_b_in1k': dict(PACA, drop_path=0.5),
    'paca/paca_b_teacher_in1k': PACA,
    **dense('paca/*', drop_path=0.1),
    'paca/paca_head_paca_t_160k': dict(PACA_HEAD, drop_path=0.1),
    'paca/paca_head_paca_s_[!m]*': dict(PACA_HEAD, drop_path=0.1),
    'paca/paca_head_paca_s_mlp_160k': dict(  # the published run names a layer that is not there
        PACA_HEAD, drop_path=0.1, mults={**TEN_TIMES, 'clustering.assign': (1, 1)}
    ),
    'paca/paca_head_paca_b_*': dict(PACA_HEAD, drop_path=0.5),
}
