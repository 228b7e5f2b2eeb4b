"""The model zoo's figures and pages are those of the models."""

import pytest
from helpers import load_config
from mmengine import fileio

from mmdense.inference.flops import measure
from mmdense.inference.model_zoo import get_shape, metafiles

FIGURES = {  # of every config
    entry['Config'].removeprefix('configs/').removesuffix('.py'): entry
    for metafile in metafiles()
    for entry in fileio.load(metafile)['Models']
}

# The authors' own counts, in millions.
COUNTED = {
    'paca/paca_s_blockwise_in1k': 24.192,
    'paca/paca_b_teacher_in1k': 47.659,
    'groupmixformer/groupmixformer_l_in1k': 71.834,
    'fcvit/fcvit_b48_in1k': 51.477,
    'msf/msf_s_g2_in1k': 20.189,
    'paca/mask_rcnn_paca_s_mlp_1x': 42.41,
    'paca/mask_rcnn_paca_b_teacher_1x': 67.35,
    'fcvit/mask_rcnn_fcvit_b24_1x': 46.62,
    'paca/upernet_paca_b_160k': 77.18,
    'paca/paca_head_paca_t_160k': 13.33,
    'paca/paca_head_paca_b_teacher_160k': 48.76,
    'paca/paca_head_paca_s_blockwise_160k': 25.78,
}


@pytest.mark.parametrize('name', COUNTED)
def test_parameters_are_the_authors(name):
    assert FIGURES[name]['Metadata']['Parameters'] / 1e6 == pytest.approx(COUNTED[name], abs=0.006)


@pytest.mark.parametrize(
    'name',
    [
        'paca/paca_t_in1k',
        'fcvit/fcvit_b12_in1k',
        'msf/mask_rcnn_msf_s_1x',
        'paca/retinanet_paca_s_1x',
    ],
)
def test_figures_are_what_is_measured(name):
    entry = FIGURES[name]
    counted = measure(load_config(name), get_shape(entry))
    assert counted.macs == pytest.approx(entry['Metadata']['FLOPs'], rel=1e-3)
    assert counted.params == entry['Metadata']['Parameters']
