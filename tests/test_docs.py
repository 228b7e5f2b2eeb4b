"""What the documentation shows is run."""

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from helpers import ROOT

from mmdense.engine.config import read_config

NO_PAGE = (
    '__init__',
    'demo',
    'dist_launch',
    'mmdense_cli',
    'model_zoo',
    'study',
)  # of make's and of the scripts'
ONE_EPOCH = ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=1']
SHORT = {
    'my_detector.py': ONE_EPOCH,
    'my_small_detector.py': [*ONE_EPOCH, 'train_cfg.val_interval=1'],
    'my_plain_detector.py': ONE_EPOCH,
    'my_segmentor.py': ['train_cfg.max_iters=2', 'train_cfg.val_interval=2'],
}
# One line each of docs/finetune.md's last table, but those for GPUs and the compiler.
ONE_LINE = {
    'my_detector.py': [
        'model.backbone.with_cp=True',
        'optim_wrapper.constructor=mmdense.LayerDecayOptimWrapperConstructor',
        'optim_wrapper.paramwise_cfg.layer_decay_rate=0.75',
    ],
}
LARGE, SMALL = 'mmdense::paca/mask_rcnn_paca_t_1x.py', 'mmdense::own/mask_rcnn_paca_own.py'


@pytest.fixture
def finetuning(place) -> str:
    """docs/finetune.md, whose configs lie beside a few digit scenes."""
    text = (ROOT / 'docs' / 'finetune.md').read_text()
    for block in re.findall(r'```python\n(.*?)```', text, re.DOTALL):
        (place / block.split('\n')[0].removeprefix('# ')).write_text(block)
    assert LARGE in text and SMALL in text
    detector = (place / 'my_detector.py').read_text()
    (place / 'my_small_detector.py').write_text(detector.replace(LARGE, SMALL))
    return text


def test_cascade_of_own_classes(finetuning, run_tool):
    options = ['--dry-run', '--cfg-options', 'model.backbone.init_cfg=None']
    code, _, err = run_tool('train.py', 'my_cascade.py', *options)
    assert code == 0, err[-3000:]
    heads = read_config('my_cascade.py').model.roi_head.bbox_head
    assert [head.num_classes for head in heads] == [10] * 3
    assert [head.bbox_coder.target_stds[0] for head in heads] == [0.1, 0.05, 0.033]


@pytest.mark.slow
@pytest.mark.parametrize('name', SHORT)
def test_finetuning_configs_train(name, place, finetuning, run_tool):
    (place / 'averaged.py').write_text("_base_ = ['my_segmentor.py', 'mmdense::_base_/ema.py']\n")
    config = 'averaged.py' if name == 'my_segmentor.py' else name
    options = ['model.backbone.init_cfg=None', *SHORT[name], *ONE_LINE.get(name, ())]
    for loader, number in (('train_dataloader', 2), ('val_dataloader', 1)):
        options += [f'{loader}.dataset.indices={number}', f'{loader}.num_workers=0']
        options.append(f'{loader}.persistent_workers=False')
    assert all(option in finetuning for option in ONE_LINE.get(name, ()))
    code, out, err = run_tool('train.py', config, '--cfg-options', *options)
    assert code == 0, err[-3000:]
    assert ('mIoU' if name == 'my_segmentor.py' else 'bbox_mAP') in out + err


@pytest.mark.slow
def test_start_page(tmp_path, monkeypatch, run_tool):
    """docs/start.md: its folders and commands, for one epoch; what they say, but for figures."""
    text = (ROOT / 'docs' / 'start.md').read_text()
    blocks = re.findall(r'```(\w*)\n(.*?)```', text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    ran = []
    for number, (language, block) in enumerate(blocks):
        if language == 'python':
            exec(block, {})
        if language != 'bash':
            continue
        _, tool, *args = shlex.split(block.replace('\\\n', ' '))
        if 'train.py' in tool:
            args[args.index('--epochs') + 1] = '1'
            args += ['--cfg-options', 'train_dataloader.dataset.indices=4']
            args.append('val_dataloader.dataset.indices=2')
        if 'test.py' in tool:
            args += ['--cfg-options', 'test_dataloader.dataset.indices=2']
        for i, arg in enumerate(args):
            if arg.endswith('.pth'):  # that of another epoch, here
                folder, kind = Path(arg).parent, Path(arg).name.split('_epoch_')[0]
                args[i] = str(next(folder.glob(f'{kind}_epoch_*.pth')))
        code, out, err = run_tool(Path(tool).name, *args)
        assert code == 0, err[-3000:]
        shown = [line.rstrip() for line in out.splitlines()]
        said = [line for line in blocks[number + 1][1].splitlines() if line]
        wanted = [line for line in said if not re.match(r'Epoch\(|\d+ epochs', line)]
        assert wanted and not set(wanted) - set(shown)
        if pages := [re.match("report: '(.+)'", line) for line in wanted if 'report:' in line]:
            assert all(Path(page[1]).read_text().startswith('<!DOCTYPE html>') for page in pages)
        ran.append(Path(tool).stem)
    assert ran == ['data', 'train', 'test'] * 3


@cache
def find_adders() -> dict[str, str]:
    """The functions that add flags to a tool's parser, by name."""
    adders = {}
    for path in (*ROOT.glob('engine/*.py'), *ROOT.glob('inference/*.py')):
        code = path.read_text()
        for node in ast.parse(code).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith('add_'):
                adders[node.name] = ast.get_source_segment(code, node)
    return adders


def get_flags(code: str) -> str:
    """A tool's code with that of the functions which add flags for it."""
    adders = find_adders()
    for name in set(re.findall(r'\badd_\w+(?=\()', code)) & adders.keys():
        code += get_flags(adders[name].partition('\n')[2])
    return code


TOOLS = sorted({path.stem for path in (ROOT / 'tools').glob('*.py')} - set(NO_PAGE))


@pytest.mark.parametrize('tool', TOOLS)
def test_pages_of_tools(tool):
    """Each tool has a page, which the README links; the options that it names exist."""
    page = (ROOT / 'docs' / 'tools' / f'{tool}.md').read_text()
    code = get_flags((ROOT / 'tools' / f'{tool}.py').read_text())
    assert f'docs/tools/{tool}.md' in (ROOT / 'README.md').read_text()
    assert f'\npython tools/{tool}.py' in page
    for option in set(re.findall(r'(?<![\w-])--[a-z][a-z0-9-]+', page)):
        assert f"'{option}'" in code, option


@pytest.mark.parametrize(
    'page',
    [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').rglob('*.md'))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links(page):
    """Local links lead to files."""
    for link in re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)', page.read_text()):
        if not link.startswith(('http://', 'https://')):
            assert (page.parent / link).exists(), link
