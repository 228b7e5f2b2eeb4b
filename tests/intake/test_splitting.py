"""A validation split that is drawn."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from makers import (
    name,
)
from PIL import Image

from mmdense.intake.examining import examine
from mmdense.intake.folder import DETECTION, Folder, Sample
from mmdense.intake.pictures import Picture
from mmdense.intake.splitting import divide


def test_seed(made):
    drawn = [
        {s.picture.name for s in examine(made('single json'), seed).folder.splits['val']}
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_every_class_gives_its_share(made):
    samples = examine(made('classes without splits')).folder.splits['val']
    assert np.bincount([sample.label for sample in samples]).tolist() == [4, 4, 4]


@pytest.mark.parametrize('seed', range(4))
def test_equal_and_like_pictures_stay_together(seed, own):
    root = own('classes without splits')
    for path in sorted(root.glob('*/*.png'))[:5]:
        shutil.copy(path, path.with_name(f'again_{path.name}'))
        Image.open(path).convert('RGB').save(path.with_suffix('.jpg'), quality=95)
    for samples in examine(root, seed).folder.splits.values():
        stems = [s.picture.stem.removeprefix('again_') for s in samples]
        assert all(stems.count(stem) in (1, 3) for stem in stems)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize(
    'sizes, together',
    [
        ((1,) * 20, True),
        ((12, *(1,) * 8), True),
        ((6, 6, 6), True),
        ((4, 3, 3, 5, 2, 3), True),
        ((19, 1), False),
        ((10, 10), False),
        ((20,), False),
    ],
)
def test_it_is_a_fifth_of_the_pictures(sizes, together, seed):
    """Given how many pictures of each kind look alike, each like the one before."""
    kinds = [kind for kind, size in enumerate(sizes) for _ in range(size)]
    paths = [Path(f'{i}.png') for i in range(len(kinds))]
    samples = [Sample(path, path.name) for path in paths]
    pictures = {path: Picture(digest=path.name) for path in paths}
    alike = [(paths[i - 1], paths[i]) for i in range(1, len(kinds)) if kinds[i] == kinds[i - 1]]
    folder = Folder(Path(), '', DETECTION, [], dict(all=samples))
    divide(folder, pictures, alike, seed)
    train, val = (folder.splits[split] for split in ('train', 'val'))
    assert 0.1 <= len(val) / len(samples) <= 0.35
    of = {sample.where: kind for sample, kind in zip(samples, kinds)}
    both = {of[sample.where] for sample in train} & {of[sample.where] for sample in val}
    assert (not both) == together == (len(folder.notes) == 1)


def test_equal_pictures_stay_together_even_where_they_are_half(own):
    root = own('classes without splits')
    for path in sorted(root.glob('*/*.png')):
        if path.stem in ('000', '001', '002', '003', '004', '005'):
            shutil.copy(path, path.with_name(f'again_{path.name}'))
        else:
            path.unlink()
    found = examine(root)
    assert [len(samples) for samples in found.folder.splits.values()] == [6, 6]
    assert {fault.kind for fault in found.faults} == {'duplicate'}
    assert len(found.folder.notes) == 1


def test_pictures_of_16_bits_are_told_apart(tmp_path, scenes):
    """Also where few of the levels are used, as 12-bit cameras do."""
    for i, scene in enumerate(scenes[:10]):
        path = tmp_path / ('kite', 'wedge')[i % 2] / name(i)
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(scene.picture[..., 0].astype(np.uint16) * 16 + 300).save(path)
    examination = examine(tmp_path)
    assert examination.faults == []
    assert [len(samples) for samples in examination.folder.splits.values()] == [8, 2]
