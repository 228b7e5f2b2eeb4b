"""The short form of ``make fuzz``; no crash and no traceback."""

import os

import pytest

fuzz = pytest.importorskip('fuzz')


def test_mutated_files_are_read_or_refused(tmp_path):
    counts = fuzz.fuzz(600, 0, tmp_path)
    for name, count in counts.items():
        assert not count['crashes'] and not count['tracebacks'], (name, list(tmp_path.iterdir()))
        assert count['read'] and count['refused'], name  # the mutants are neither dull nor wild
        assert count['read'] + count['refused'] == count['inputs']


def test_the_fuzzer_sees_crashes_and_tracebacks(tmp_path):
    def use(path, data, turn):
        path.write_bytes(data)
        if turn == 2:
            raise ZeroDivisionError
        if turn == 5:
            os.kill(os.getpid(), 9)

    files = {'a.pth': b'PK\x03\x04'}
    change = dict(fuzz.CHANGE, pickle=fuzz.edit_bytes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzz, 'CHANGE', change)
        assert fuzz.run_batch(files, use, 20, 0, tmp_path) == dict(inputs=1, crashes=1)
        assert list(tmp_path.glob('crash*')) and list(tmp_path.glob('traceback*.txt'))
        assert fuzz.run_batch(files, use, 3, 0, tmp_path)['tracebacks'] == 1
