"""What a config may ask of the compiler."""

from types import SimpleNamespace

import torch
from mmengine.registry import HOOKS


def test_backbone_is_compiled_in_place():
    model = torch.nn.Module()
    model.backbone = torch.nn.Linear(2, 2)
    calls = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> object:
        calls.append(graph)
        return graph.forward

    hook = HOOKS.build(dict(type='mmdense.CompileBackboneHook', backend=backend))
    names = list(model.state_dict())
    hook.before_run(SimpleNamespace(model=model))
    model.backbone(torch.ones(1, 2))
    assert len(calls) == 1 and list(model.state_dict()) == names
