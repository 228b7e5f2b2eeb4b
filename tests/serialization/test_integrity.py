"""Damage of checkpoint files is found, wherever it is."""

import random
from pathlib import Path

import pytest
import torch

from mmdense.serialization.integrity import find_damage


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / 'whole.pth'
    torch.save(dict(state_dict={f'layer.{i}': torch.randn(64, 64) for i in range(8)}), path)
    return path


def test_whole_files_are_whole(whole, tmp_path):
    assert find_damage(whole) is None
    torch.save(torch.zeros(3), tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    assert find_damage(tmp_path / 'old.pth') is None


def test_every_flipped_bit_of_the_tensors_is_seen(whole):
    data = whole.read_bytes()
    values = torch.load(whole)['state_dict'].values()
    spans = [data.index(value.numpy().tobytes()) for value in values]
    draw = random.Random(0)
    for _ in range(50):
        place = draw.choice(spans) + draw.randrange(64 * 64 * 4)
        flipped = bytearray(data)
        flipped[place] ^= 1 << draw.randrange(8)
        whole.write_bytes(flipped)
        assert 'checksum' in find_damage(whole)


def test_every_cut_is_seen(whole):
    data = whole.read_bytes()
    draw = random.Random(0)
    whole.write_bytes(b'')
    assert find_damage(whole) == 'it is empty'
    for _ in range(50):
        whole.write_bytes(data[: draw.randrange(4, len(data) - 22)])
        assert 'cut off' in find_damage(whole)


def test_a_file_that_is_not_there(tmp_path):
    assert find_damage(tmp_path / 'none.pth') == 'it cannot be read (No such file or directory)'
