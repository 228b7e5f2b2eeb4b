#!/usr/bin/env bash
# The tests of what hangs on other projects' releases, beside the newest ones that pip finds.
#   [PYTHON=python3.11] bash tests/newest.sh FOLDER      # or: make test-newest
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
venv=$1
rm -rf "$venv"
"${PYTHON:-python3}" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-cache-dir)
"${pip[@]}" setuptools wheel torch torchvision timm transformers numpy "$root[test]"
# As in tools/setup_env.sh: of the two OpenCVs, the one without libGL comes last.
headless=$("$venv/bin/python" -m pip freeze | grep '^opencv-python-headless==')
"${pip[@]}" --no-deps --force-reinstall "$headless"
"${pip[@]}" --no-deps --no-build-isolation --editable "$root"
"$venv/bin/python" -m pip check
"$venv/bin/python" -m pip list | grep -E '^(torch|torchvision|timm|transformers|numpy|onedl-\w+) '
cd "$root"
exec "$venv/bin/python" -m pytest -n 2 tests/test_packaging.py tests/test_compat.py \
    tests/test_compat_forms.py tests/test_fresh_process.py tests/test_timm_models.py \
    tests/tools/test_doctor.py
