"""What the documentation shows is run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmdense
from mmdense.data.digit_scenes import Sizes, generate

ROOT = Path(mmdense.__file__).parent
NO_PAGE = ('__init__', 'demo', 'model_zoo')  # of make's, in README.md
SIZES = {'train': Sizes(scenes=4, crops=4), 'val': Sizes(scenes=2, crops=2)}
SHORT = {
    'my_detector.py': ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=2'],
    'my_segmentor.py': ['train_cfg.max_iters=2', 'train_cfg.val_interval=2'],
}
# One line each of docs/finetune.md's last table, but those for GPUs and the compiler.
ONE_LINE = {
    'my_detector.py': [
        'model.backbone.with_cp=True',
        'optim_wrapper.constructor=mmdense.LayerDecayOptimWrapperConstructor',
        'optim_wrapper.paramwise_cfg.layer_decay_rate=0.75',
    ],
    'my_segmentor.py': [],
}


@pytest.fixture(scope='module')
def place(tmp_path_factory) -> Path:
    """The configs of docs/finetune.md beside a few digit scenes."""
    folder = tmp_path_factory.mktemp('docs')
    generate(folder / 'data' / 'digit_scenes', SIZES, seed=0)
    text = (ROOT / 'docs' / 'finetune.md').read_text()
    for block in re.findall(r'```python\n(.*?)```', text, re.DOTALL):
        name = block.split('\n')[0].removeprefix('# ')
        (folder / name).write_text(block)
    (folder / 'averaged.py').write_text("_base_ = ['my_segmentor.py', 'mmdense::_base_/ema.py']\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('name', SHORT)
def test_finetuning_configs_train(name, place):
    config = 'averaged.py' if name == 'my_segmentor.py' else name
    options = ['model.backbone.init_cfg=None', 'train_dataloader.num_workers=0']
    options += ['train_dataloader.persistent_workers=False', *SHORT[name], *ONE_LINE[name]]
    assert all(option in (ROOT / 'docs/finetune.md').read_text() for option in ONE_LINE[name])
    result = subprocess.run(
        [sys.executable, str(ROOT / 'tools/train.py'), config, '--amp', '--cfg-options', *options],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    metric = 'bbox_mAP' if name == 'my_detector.py' else 'mIoU'
    assert metric in result.stdout + result.stderr


TOOLS = [path.stem for path in (ROOT / 'tools').glob('*.py') if path.stem not in NO_PAGE]


@pytest.mark.parametrize('tool', TOOLS)
def test_pages_of_tools(tool):
    """Each tool has a page, which the README links; the options that it names exist."""
    page = (ROOT / 'docs' / 'tools' / f'{tool}.md').read_text()
    code = (ROOT / 'tools' / f'{tool}.py').read_text() + (ROOT / 'engine/launch.py').read_text()
    code += (ROOT / 'engine/config.py').read_text()
    assert f'docs/tools/{tool}.md' in (ROOT / 'README.md').read_text()
    assert f'\npython tools/{tool}.py' in page
    for option in set(re.findall(r'(?<![\w-])--[a-z][a-z-]+', page)):
        assert f"'{option}'" in code, option


@pytest.mark.parametrize(
    'page', [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *(ROOT / 'docs').rglob('*.md')], ids=str
)
def test_links(page):
    """Local links lead to files."""
    for link in re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)', page.read_text()):
        if not link.startswith(('http://', 'https://')):
            assert (page.parent / link).exists(), link
