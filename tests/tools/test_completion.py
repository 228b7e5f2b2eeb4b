"""The Tab key: what the scripts offer, in the shells themselves."""

import shutil
import subprocess

import pytest

# What is typed, and what must be, and must not be, among the offers for its last word.
TYPED = {
    'tool': (['tr'], {'train'}, {'test'}),
    'short name': (['con'], {'convert'}, {'convert_checkpoint'}),
    'flag': (['train', '--re'], {'--resume'}, {'--dry-run'}),
    'choice': (['flops', 'a.py', '--convention', ''], {'macs', 'original'}, set()),
    'config': (['train', 'paca/mask_rcnn_paca_b'], {'paca/mask_rcnn_paca_b_1x'}, set()),
    'config of several': (['benchmark', 'fcvit/fcvit_t'], {'fcvit/fcvit_tiny_in1k'}, set()),
    'config file': (['predict', 'own'], {'own.py'}, {'paca/mask_rcnn_paca_b_1x'}),
    'file': (['predict', 'c', 'w', 'pic'], {'pictures'}, {'own.py'}),
    'file of a flag': (['train', '--data', 'pic'], {'pictures'}, {'own.py'}),
}


@pytest.fixture(scope='module')
def script(run_tool, tmp_path_factory) -> str:
    code, out, err = run_tool('completion.py', 'bash')
    assert code == 0, err
    path = tmp_path_factory.mktemp('completion') / 'mmdense'
    path.write_text(out)
    return str(path)


@pytest.mark.parametrize('words, wanted, unwanted', TYPED.values(), ids=TYPED)
def test_bash(script, tmp_path, words, wanted, unwanted):
    (tmp_path / 'own.py').touch()
    (tmp_path / 'pictures').mkdir()
    program = 'source "$1"; shift; COMP_WORDS=(mmdense "$@"); COMP_CWORD=$#\n'
    program += 'name=$(complete -p mmdense); name=${name##*-F }; ${name% *}\n'
    program += 'printf "%s\\n" "${COMPREPLY[@]}"'
    command = ['bash', '-c', program, 'bash', script, *words]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    offered = set(run.stdout.split())
    assert wanted <= offered and not unwanted & offered, (offered, run.stderr)


def test_zsh(run_tool, tmp_path):
    code, out, err = run_tool('completion.py', 'zsh')
    assert code == 0, err
    assert out.startswith('#compdef mmdense\n')
    assert 'paca/mask_rcnn_paca_b_1x' in out and '--work-dir' in out
    if shutil.which('zsh'):
        (tmp_path / '_mmdense').write_text(out)
        subprocess.run(['zsh', '-n', tmp_path / '_mmdense'], check=True)
