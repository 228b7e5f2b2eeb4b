"""What libraries keep in checkpoints beside tensors is made again from plain parts."""

from pickle import UnpicklingError

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from mmdense.serialization.checkpoint import load_file
from mmdense.serialization.rebuilding import MAX_DEPTH, rebuild


def test_what_the_toolboxes_write_is_read(tmp_path):
    """Histories, arrays and numbers of numpy, options, paths: as they were."""
    from argparse import Namespace
    from collections import Counter, OrderedDict
    from pathlib import PosixPath

    state = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).state_dict()
    content = dict(
        state_dict=state,
        meta=dict(dataset_meta=dict(classes=('a',), palette=np.array([[1, 2, 3]])), time='now'),
        logs=HistoryBuffer([1.0, 2.0], [1, 1], max_length=3),
        nothing=HistoryBuffer(),
        arrays=[
            np.arange(6.0).reshape(2, 3),
            np.asfortranarray(np.arange(6, dtype='>i2').reshape(2, 3)),
            np.array(['a', 'bc']),
            np.array([b'a', b'bc']),
            np.array([True, False]),
            np.zeros((0, 3), np.complex64),
        ],
        numbers=[np.float64(0.5), np.int64(3), np.bool_(True), np.float32(1)],
        dtype=np.dtype('<f4'),
        args=Namespace(lr=0.1, model='a'),
        path=PosixPath('a/b'),
        steps=Counter({3: 1}),
        rest=[slice(1, None), {1, 2}, 1j, b'bytes', b'', 2**80, torch.Size([1]), torch.float16],
        order=OrderedDict(a=torch.device('cpu')),
    )
    for legacy in (False, True):
        path = tmp_path / f'{legacy}.pth'
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        read = load_file(path)
        assert read['state_dict']._metadata == state._metadata
        for key, value in state.items():
            assert torch.equal(read['state_dict'][key], value)
        assert read['logs'].mean() == 1.5 and read['logs'].max_length == 3
        assert len(read['nothing'].data[0]) == 0
        for made, known in zip(read['arrays'], content['arrays'], strict=True):
            assert made.dtype == known.dtype and np.array_equal(made, known)
            assert (made.flags.writeable and made.flags.owndata) or made.dtype == bool
        for key in ('numbers', 'dtype', 'args', 'path', 'steps', 'rest', 'order'):
            assert read[key] == content[key], key
        assert [type(n) for n in read['numbers']] == [type(n) for n in content['numbers']]


def test_as_deep_as_it_may_be():
    """A hundred containers in the outermost one."""
    content = 1
    for _ in range(MAX_DEPTH + 1):
        content = [content]
    assert rebuild(content) == content
    with pytest.raises(UnpicklingError, match=f'more than {MAX_DEPTH} deep'):
        rebuild([content])
