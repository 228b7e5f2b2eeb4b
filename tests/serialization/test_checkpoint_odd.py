"""Odd but harmless checkpoints: each is read, or refused in one line, whatever is done with it."""

from collections import OrderedDict

import pytest
import torch
from helpers import DIGIT_CONFIGS, check_fails
from mmengine.runner import checkpoint
from payloads import Call
from torch import nn

from mmdense.errors import UserError
from mmdense.serialization.checkpoint import get_classes, get_state_dict, load_file, save_weights
from mmdense.serialization.conversion import convert, has_averaged_weights, pick_weights
from mmdense.serialization.loading import load_pretrained, load_whole, select_pretrained

W = dict(weight=torch.ones(1, 1), bias=torch.ones(1))


def with_meta(**meta: object) -> dict:
    return dict(state_dict=W, meta=meta)


def with_classes(classes: object, **more: object) -> dict:
    return with_meta(dataset_meta=dict(classes=classes, **more))


def make_odd() -> dict[str, tuple[object, bool | None]]:
    """Contents by name, with whether they are read into a ``nn.Linear(1, 1)``; None for either."""
    shadowed = Call(OrderedDict, (list(map(list, W.items())),), dict(items=5))
    shared = torch.ones(2)
    optimizer = torch.optim.Adam(nn.Linear(1, 1).parameters()).state_dict()
    return dict(
        list=([1, 2], False),
        tensor=(torch.ones(2), False),
        number=(5, False),
        nothing=(None, False),
        text=('weights', False),
        empty=({}, False),
        number_keys=({0: torch.ones(1)}, False),
        tuple_keys=(dict(state_dict={('a', 1): torch.ones(1)}), False),
        long_name=(dict(W, **{'a' * 100_000: torch.ones(1)}), False),
        line_in_name=(dict(W, **{'a\nb': torch.ones(1)}), False),
        escape_in_name=(dict(W, **{'\x1b[2J': torch.ones(1)}), False),
        surrogate_in_name=(dict(W, **{'\ud800': torch.ones(1)}), False),
        name_of_999=(dict(W, **{'a' * 999: torch.ones(1)}), True),
        no_values=(dict(weight=None, bias=None), False),
        some_values=(dict(W, step=3, name='x', no=None), True),
        state_none=(dict(state_dict=None), False),
        state_list=(dict(state_dict=[torch.ones(1)]), False),
        state_tensor=(dict(state_dict=torch.ones(1)), False),
        state_empty=(dict(state_dict={}), False),
        state_nested=(dict(state_dict=dict(state_dict=W)), False),
        model_nested=(dict(model=dict(model=W)), False),
        model=(dict(model=W), False),
        meta_none=(dict(state_dict=W, meta=None), None),
        meta_list=(dict(state_dict=W, meta=[1]), False),
        meta_text=(dict(state_dict=W, meta='epoch 3'), False),
        meta_odd=(with_meta(epoch='three', iter=None, time=b'now'), True),
        dataset_meta_text=(with_meta(dataset_meta='/etc/passwd'), False),
        dataset_meta_none=(with_meta(dataset_meta=None), True),
        dataset_meta_list=(with_meta(dataset_meta=['a']), False),
        dataset_meta_odd=(with_classes(['a'], x=torch.ones(1), y={1: 2}, z=b'b'), True),
        classes_text=(with_classes('/etc/passwd'), False),
        classes_behind=(with_meta(dataset_meta=dict(version=1, classes='/etc/passwd')), False),
        classes_numbers=(with_classes([1, 2]), False),
        classes_dict=(with_classes({'a': 1}), False),
        classes_none=(with_classes(None), True),
        classes_empty=(with_classes([]), True),
        classes_few=(with_classes(['a'], palette=[[1, 2, 3]]), True),
        classes_old_text=(with_meta(CLASSES='/etc/passwd'), False),
        classes_upper_text=(with_meta(dataset_meta=dict(CLASSES='/etc/passwd')), False),
        palette_text=(with_classes(['a'], palette='/etc/passwd'), False),
        palette_number=(with_classes(['a'], palette=7), False),
        palette_pairs=(with_classes(['a'], palette=[[1, 2]]), False),
        hub_list=(dict(state_dict=W, message_hub=[1]), True),
        hub_odd=(dict(state_dict=W, message_hub=dict(runtime_info=3, log_scalars=None)), True),
        sparse=(dict(weight=torch.eye(2).to_sparse(), bias=torch.ones(1)), False),
        sparse_csr=(dict(weight=torch.eye(2).to_sparse_csr()), False),
        quantized=(dict(weight=torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8)), False),
        meta_tensor=(dict(weight=torch.empty(1, 1, device='meta')), False),
        complex=(dict(W, weight=torch.ones(1, 1, dtype=torch.complex64)), False),
        conjugate=(dict(a=torch.ones(1, dtype=torch.complex64).conj()), False),
        zero_size=(dict(W, a=torch.zeros(0, 3)), True),
        shared=(dict(weight=shared[:1].view(1, 1), bias=shared[1:], a=shared), True),
        expanded=(dict(weight=torch.ones(1, 1), bias=torch.ones(1).expand(1)), True),
        bfloat16=({k: v.bfloat16() for k, v in W.items()}, True),
        float8=({k: v.to(torch.float8_e4m3fn) for k, v in W.items()}, None),
        uint16=({k: v.to(torch.uint16) for k, v in W.items()}, None),
        integers=({k: v.long() for k, v in W.items()}, True),
        scalars=(dict(weight=torch.tensor(1.0), bias=torch.tensor(1.0)), False),
        parameters=(dict(nn.Linear(1, 1).named_parameters()), True),
        buffers=(dict(running_mean=torch.ones(1), steps=torch.tensor(3)), False),
        ddp=({f'module.{k}': v for k, v in W.items()}, True),
        ddp_twice=({f'module.module.{k}': v for k, v in W.items()}, False),
        optimizer=(optimizer, False),
        averaged=(dict(state_dict=W, state_dict_ema=[1], ema_state_dict=None), True),
        nan=(dict(W, weight=torch.full((1, 1), float('nan'))), False),
        shadowed=(shadowed, True),
        deep=(dict(state_dict=W, a=[[[[[[[[1]]]]]]]]), True),
    )


ODD = make_odd()
USES = {
    'load': lambda content, path: load_whole(nn.Linear(1, 1), get_state_dict(content), 'odd.pth'),
    'pretrained': lambda content, path: load_pretrained(nn.Linear(1, 1), str(path)),
    'select': lambda content, path: select_pretrained(
        nn.Linear(1, 1), get_state_dict(content), 'odd.pth', 'a'
    ),
    'classes': lambda content, path: get_classes(content.get('meta') or {}),
    'pick': lambda content, path: pick_weights(content, ema=has_averaged_weights(content)),
    'convert': lambda content, path: convert(pick_weights(content)),
    'pth': lambda content, path: save_weights(
        pick_weights(content), content.get('meta'), path.with_name('out.pth')
    ),
    'safetensors': lambda content, path: save_weights(
        pick_weights(content), content.get('meta'), path.with_name('out.safetensors')
    ),
    'mmengine': lambda content, path: checkpoint.load_checkpoint(nn.Linear(1, 1), str(path)),
}


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('name', ODD)
def test_each_is_read_or_refused_in_one_line(name, legacy, tmp_path):
    content, is_read = ODD[name]
    path = tmp_path / 'odd.pth'
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    for use, function in USES.items():
        try:
            function(load_file(path), path)
            done = True
        except UserError as error:
            done = False
            assert '\n' not in str(error) and str(error).isprintable() and len(str(error)) < 4000
        if use == 'load' and is_read is not None:
            assert done == is_read


@pytest.mark.parametrize('name', ['classes_text', 'nan', 'state_list', 'hub_list', 'optimizer'])
@pytest.mark.parametrize('tool', ['predict.py', 'test.py', 'publish_model.py', 'resume'])
def test_tools(name, tool, place, run_tool):
    torch.save(ODD[name][0], 'odd.pth')
    config = DIGIT_CONFIGS['mmpretrain']
    picture = next((place / 'data').rglob('*.png'))
    args = {
        'predict.py': (config, 'odd.pth', picture),
        'test.py': (config, 'odd.pth'),
        'publish_model.py': ('odd.pth', 'out.pth'),
        'resume': (config, '--resume', 'odd.pth'),
    }[tool]
    result = run_tool(tool if tool != 'resume' else 'train.py', *args)
    if (name, tool) != ('hub_list', 'publish_model.py'):
        check_fails(result, 'odd.pth')
