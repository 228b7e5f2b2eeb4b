"""The teacher is of the stages that it serves."""

import torch
from helpers import build
from torch import nn

NAME = 'PaCaViT-teacher'


def test_a_teacher_is_frozen_with_the_first_stage():
    for frozen_stages in (-1, 0, 1, 2):
        model = build(NAME, frozen_stages=frozen_stages).train()
        frozen = {p.requires_grad for p in model.teacher.parameters()} == {False}
        assert frozen == (frozen_stages > 0)
        norms = [m for m in model.teacher.modules() if isinstance(m, nn.BatchNorm2d)]
        before = [norm.running_var.clone() for norm in norms]
        sum(m.square().mean() for m in model(torch.randn(2, 3, 64, 64))).backward()
        assert norms
        for norm, running_var in zip(norms, before):
            assert torch.equal(norm.running_var, running_var) == frozen


def test_a_teacher_learns_with_the_stages_that_it_serves():
    model = build(NAME)
    wanted = model.get_layer_depth('stages.1.blocks.0.norm1.weight')
    for key in ('teacher.blocks.1.0.pointwise.0.weight', 'teacher.fpns.1.depthwise.0.weight'):
        assert dict(model.named_parameters())[key] is not None
        assert model.get_layer_depth(key) == wanted
