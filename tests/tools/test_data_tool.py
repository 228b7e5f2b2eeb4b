"""tools/data.py: the terminal, the page, the mended copy, the exit code."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import DIGIT_CONFIGS, check_fails
from makers import CLASSES, MAKERS, make_scenes, write
from pages import read_page
from PIL import Image

from mmdense.intake.examining import examine

LINE = 'labels/train/000.txt'


@pytest.fixture(autouse=True)
def there(tmp_path, monkeypatch) -> None:
    """Tests run in their own folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope='module')
def scenes() -> list:
    return make_scenes(15)


def make(maker: str, scenes: list) -> Path:
    MAKERS[maker].make(Path('shapes'), scenes)
    return Path('shapes')


@pytest.mark.parametrize('maker', ['yolo', 'voc', 'masks', 'classes without splits'])
def test_sound_folder(maker, scenes, run_tool):
    """The terminal and the page say what lies there."""
    code, out, err = run_tool('data.py', make(maker, scenes))
    assert code == 0, err
    assert out.startswith(f'{MAKERS[maker].layout}, ') and '12 train + 3 val pictures' in out
    assert 'no fault was found' in out and "report: 'work_dirs/shapes/data.html'" in out
    page = read_page(Path('work_dirs/shapes/data.html'))
    assert all(word in page.text for word in (*CLASSES, 'None was found.', 'Samples: train'))
    assert page.tags.count('img') >= 15
    assert ('objects are smaller' in out) is False


def test_faulty_folder(scenes, run_tool):
    """Exit code 1; each fault with its place, all of them on the page."""
    root = make('yolo', scenes)
    write(root / LINE, ''.join(f'0 {i}.5 .5 .1 .1\n' for i in range(2, 8)))
    code, out, err = run_tool('data.py', root, '--report', 'page.html')
    assert code == 1, err
    assert 'fault: box outside: 6 boxes outside their picture; --fix drops them' in out
    assert f'{LINE}:1: ' in out and 'and 3 more' in out and f'{LINE}:6' not in out
    assert '12 faults of 2 kinds, 0 warnings' in out  # they have no shape, either
    assert f'{LINE}:6' in read_page(Path('page.html')).text


def test_warnings_alone(scenes, run_tool):
    root = make('yolo', scenes)
    (root / LINE).unlink()
    code, out, err = run_tool('data.py', root)
    assert code == 0, err
    assert 'warning: unlabelled picture: 1 pictures' in out
    assert '0 faults of 0 kinds, 1 warnings' in out


EVIL = '<script>alert("[red]1[/red]")</script>'


def test_names_stay_text(scenes, run_tool):
    """Of classes and files, on the terminal and on the page."""
    root = make('coco', scenes)
    for path in root.glob('annotations/*.json'):
        content = json.loads(path.read_text())
        content['categories'][0]['name'] = EVIL
        content['annotations'][0]['category_id'] = EVIL
        path.write_text(json.dumps(content))
    code, out, err = run_tool('data.py', root)
    assert code == 1, err
    assert EVIL in out and f'no category has the id {EVIL}' in out
    assert EVIL in read_page(Path('work_dirs/shapes/data.html')).text


def test_small_objects_are_pointed_out(scenes, run_tool):
    root = make('yolo inside splits', scenes)
    for path in root.rglob('labels/*.txt'):
        path.write_text('0 .5 .5 .01 .01\n0 .2 .2 .3 .3\n')
    code, out, err = run_tool('data.py', root, '--model', DIGIT_CONFIGS['mmdet'])
    assert code == 0, err
    assert '15 of 30 objects are smaller than 4 pixels in the model' in out


class TestFix:
    """A copy, whole or not at all, never in place."""

    def test_copy(self, scenes, run_tool):
        root = make('yolo inside splits', scenes)
        write(root / 'train/labels/000.txt', '0 3 .5 .1 .1\n1 .5 .5 .1 .1')
        before = {path: path.read_bytes() for path in root.rglob('*') if path.is_file()}
        code, out, err = run_tool('data.py', root, '--fix', 'mended')
        assert code == 1, err
        assert '1 objects dropped: box outside' in out and "mended copy: 'mended'" in out
        assert {path: path.read_bytes() for path in root.rglob('*') if path.is_file()} == before
        again = examine('mended')
        assert again.faults == [] and again.folder.layout == 'COCO json'
        assert sorted(p.name for p in Path().iterdir()) == ['mended', 'shapes', 'work_dirs']

    @pytest.mark.parametrize(
        'out, message', [('mended', "'mended' exists"), ('shapes/new', "lies within 'shapes'")]
    )
    def test_refused(self, out, message, scenes, run_tool):
        root = make('classes', scenes)
        Path('mended').mkdir()
        check_fails(run_tool('data.py', root, '--fix', out), message)
        assert not list(Path('mended').iterdir()) and not Path('shapes/new').exists()

    def test_nothing_is_left_of_a_copy_that_fails(self, scenes, run_tool, monkeypatch):
        def fail(*args: object) -> None:
            raise OSError(28, 'No space left on device')

        root = make('classes', scenes)
        monkeypatch.setattr('mmdense.intake.copying.shutil.copyfile', fail)
        check_fails(run_tool('data.py', root, '--fix', 'mended'), 'No space left')
        assert sorted(p.name for p in Path().iterdir()) == ['shapes', 'work_dirs']

    @pytest.mark.parametrize('maker', ['colours', 'values', 'voc', 'single json'])
    def test_content_is_kept(self, maker, scenes, run_tool):
        """Labels and pixels of a sound folder's copy are the folder's own."""
        root = make(maker, scenes)
        code, _, err = run_tool('data.py', root, '--fix', 'mended')
        assert code == 0, err
        found = [gather(examine(folder).folder) for folder in (root, 'mended')]
        assert found[0] == found[1]


def gather(folder) -> dict:
    """What each picture is said to hold, by the name of its file."""
    return {
        sample.picture.name: (
            split,
            np.asarray(Image.open(sample.picture)).tobytes(),
            sorted((folder.codes[v], n) for v, n in (sample.values or {}).items()),
            [(folder.classes[i.label], [round(x, 6) for x in i.box]) for i in sample.instances],
        )
        for split, sample in folder.samples()
    }


@pytest.mark.parametrize(
    'args, message',
    [
        (['nothing'], "'nothing' is no folder"),
        (['.'], 'no layout that is known'),
        (['shapes', '--model', 'nothing.py'], "config 'nothing.py' does not exist"),
    ],
)
def test_bad_input(args, message, scenes, run_tool):
    if 'shapes' in args:
        make('classes', scenes)
    check_fails(run_tool('data.py', *args), message)
