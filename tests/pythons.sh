#!/usr/bin/env bash
# The pinned environment and the tests of what hangs on it, under every Python of README.md.
#   bash tests/pythons.sh FOLDER [VERSION ...]      # or: make test-pythons
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1
shift
[ $# -gt 0 ] || set -- 3.10 3.11 3.12 3.13
for version; do
    echo "Python $version"
    make --no-print-directory env VENV="$folder/$version" PYTHON="python$version"
    python=$(realpath -s "$folder/$version/bin/python")
    "$python" -m pip check
    "$python" -m pytest -n 2 --dist worksteal tests/test_packaging.py tests/test_compat.py \
        tests/test_compat_forms.py tests/test_fresh_process.py tests/test_timm_models.py \
        tests/tools/test_doctor.py tests/engine/test_training.py
done
