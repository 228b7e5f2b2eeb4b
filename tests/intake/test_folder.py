"""Names of files and folders: which are listed, which split they speak of, where they lead."""

from pathlib import Path

import pytest

from mmdense.errors import UserError
from mmdense.intake.folder import (
    MAX_NAME,
    Folder,
    Instance,
    Sample,
    find_split,
    find_strange_names,
    find_task,
    join_inside,
    list_files,
    list_folders,
    list_pictures,
    read_lines,
    read_names,
    read_text,
)


@pytest.mark.parametrize(
    'name, split',
    [
        ('train', 'train'),
        ('Training_2017', 'train'),
        ('instances_val2017.json', 'val'),
        ('valid', 'val'),
        ('my-test-set', 'test'),
        ('constrained', None),
        ('evaluate', None),
        ('', None),
    ],
)
def test_splits_by_whole_words(name, split):
    assert find_split(name) == split


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b'')


def test_what_is_listed(tmp_path):
    """Sorted, by suffix in any case; neither hidden files nor names that a list cannot hold."""
    make(tmp_path, 'b.PNG', 'a.jpg', '.c.png', 'd\n.png', 'notes.txt', 'in/e.png', '.in/f.png')
    (tmp_path / 'out').mkdir()
    assert [p.name for p in list_pictures(tmp_path)] == ['a.jpg', 'b.PNG']
    assert [p.name for p in list_pictures(tmp_path, deep=True)] == ['a.jpg', 'b.PNG', 'e.png']
    assert [p.name for p in list_files(tmp_path, ['.txt'], deep=True)] == ['notes.txt']
    assert [p.name for p in list_folders(tmp_path)] == ['in', 'out']
    assert list_folders(tmp_path / 'nothing') == []
    folder = Folder(tmp_path, '', '', [], {})
    assert [f.where for f in find_strange_names(folder)] == ['d\\n.png']


@pytest.mark.parametrize(
    'name, found',
    [
        ('a.png', 'images/a.png'),
        ('b\\a.png', 'images/b/a.png'),  # as Windows writes it
        ('../other/a.png', 'other/a.png'),
        ('../../a.png', None),
        ('/etc/passwd', None),
        ('', None),
        (None, None),
        (7, None),
        ('a\0.png', None),
        ('\ud800.png', None),
        ('a' * MAX_NAME, 'images/' + 'a' * MAX_NAME),
        ('a' * (MAX_NAME + 1), None),
        ('é' * (MAX_NAME // 2 + 1), None),  # bytes count
    ],
)
def test_annotations_name_files_of_the_data_set(name, found, tmp_path):
    assert join_inside(tmp_path / 'images', name, tmp_path) == (found and tmp_path / found)


def test_text_files(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_bytes('\ufeff one \n\n two\n'.encode())
    assert read_text(path) == ' one \n\n two\n'
    assert read_lines(path) == ['one', '', 'two'] and read_names(path) == ['one', 'two']
    with pytest.raises(ValueError, match='15 bytes, more than the 14'):
        read_text(path, limit=14)
    with pytest.raises(ValueError, match='no regular file'):
        read_text(tmp_path)
    path.write_bytes(b'\xff')
    with pytest.raises(UserError, match=r"a\.txt' cannot be read: .*; write one class a line"):
        read_names(path)


def test_task_of_objects():
    """Shapes where more than half of the objects have one."""
    box = Instance(0, '', box=[0, 0, 1, 1])
    shape = Instance(0, '', polygons=[[0, 0, 1, 0, 1, 1]])
    for instances, task in (
        ([box, shape], 'detection'),
        ([box, shape, shape], 'instance segmentation'),
        ([], 'detection'),
    ):
        assert find_task(dict(all=[Sample(Path(), '', instances=instances)])) == task


def test_splits_of_a_folder():
    folder = Folder(Path('root'), '', '', [], {})
    samples = [Sample(Path(name), name) for name in 'ab']
    folder.add('train', samples[:1])
    folder.add('val', samples[1:])
    assert [(split, sample.where) for split, sample in folder.samples()] == [
        ('train', 'a'),
        ('val', 'b'),
    ]
    assert folder.name(Path('root/images/a.png')) == 'images/a.png'
    with pytest.raises(UserError, match="'root' has two folders for the split 'val'"):
        folder.add('val', [])
