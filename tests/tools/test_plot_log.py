"""tools/plot_log.py: every key is found, files are pictures, bad input is told in one line."""

from pathlib import Path

import cv2
import pytest
from log_rows import train_row, write, write_resumed


@pytest.fixture
def work_dir(tmp_path) -> Path:
    return write_resumed(tmp_path / 'my_run')


class TestTool:
    def test_default_keys_and_file(self, work_dir, run_tool, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        code, out, err = run_tool('plot_log.py', work_dir)
        assert code == 0, err
        assert out == "loss, mIoU of my_run: 'curves.png'\n"
        assert cv2.imread('curves.png').std() > 10

    @pytest.mark.parametrize('suffix', ['.png', '.pdf', '.svg'])
    def test_several_runs(self, work_dir, run_tool, tmp_path, suffix):
        other = write(tmp_path / 'other/t/vis_data/scalars.json', [train_row(5)])
        path = tmp_path / 'new' / f'picture{suffix}'
        keys = ['--keys', 'loss', 'lr', '--smooth', 2]
        code, out, err = run_tool('plot_log.py', work_dir, other, *keys, '--out', path)
        assert code == 0, err
        assert out.startswith('loss, lr of my_run, other') and path.stat().st_size > 1000
        assert list(path.parent.iterdir()) == [path]

    @pytest.fixture
    def fails(self, run_tool, tmp_path):
        def check(*args: object, message: str) -> None:
            args = args if '--out' in args else (*args, '--out', tmp_path / 'out.png')
            code, out, err = run_tool('plot_log.py', *args)
            assert code == 1 and not out and err.count('\n') == 1 and message in err, err
            assert not (tmp_path / 'out.png').exists()

        return check

    def test_unknown_key(self, work_dir, fails):
        fails(work_dir, '--keys', 'loss', 'acc', message='no acc here; there are: lr, loss, time')

    def test_no_log(self, tmp_path, fails):
        fails(tmp_path / 'nothing', message="nothing' does not exist")
        fails(tmp_path, message='holds no */vis_data/scalars.json')

    @pytest.mark.parametrize('content', [b'\xff\xd8\n', b'a log\n', b'{"loss": 1}\n', b'5\n[1]\n'])
    def test_another_kind_of_file(self, tmp_path, fails, content):
        path = tmp_path / 'file.json'
        path.write_bytes(content)
        fails(path, message='is no scalars.json of a training')

    def test_nothing_logged_yet(self, tmp_path, fails):
        fails(write(tmp_path / 'scalars.json', []), message='has no rows yet')

    def test_nothing_to_draw_by_default(self, tmp_path, fails):
        row = dict(lr=1.0, iter=1, step=1)
        fails(write(tmp_path / 'scalars.json', [row]), message='no loss here; there are: lr')

    def test_out(self, work_dir, tmp_path, fails):
        fails(work_dir, '--out', tmp_path / 'curves', message='name a file that ends in .png')
        (tmp_path / 'file').write_text('mine')
        fails(work_dir, '--out', tmp_path / 'file' / 'c.png', message='cannot be written')
        (tmp_path / 'folder.png').mkdir()
        fails(work_dir, '--out', tmp_path / 'folder.png', message='cannot be written')

    def test_smooth(self, work_dir, run_tool):
        code, _, err = run_tool('plot_log.py', work_dir, '--smooth', 0)
        assert code == 2 and 'at least 1' in err
