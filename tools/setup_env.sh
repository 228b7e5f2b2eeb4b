#!/usr/bin/env bash
# Make a virtual environment with the pinned stack and this package, or bring it up to date.
#   [PYTHON=python3.12] bash tools/setup_env.sh FOLDER
# A finished environment is recognized by a stamp with the hash of what made it; naming another
# Python than it has makes it anew.
set -euo pipefail
venv=$1
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
hash=$(cat "$root/requirements.txt" "$0" | sha256sum | cut -c1-16)

version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

if [ ! -f "$venv/.ready-$hash" ] ||
    { [ -n "${PYTHON:-}" ] && [ "$(version "$python")" != "$(version "$venv/bin/python")" ]; }; then
    case $(version "$python") in
    3.10 | 3.11 | 3.12 | 3.13) ;;
    *)
        echo "error: requirements.txt pins for Python 3.10 to 3.13, and $python is" \
            "$("$python" --version 2>&1); name another one: make PYTHON=python3.12 ..." >&2
        exit 1
        ;;
    esac
    # An activated environment that is out of date is removed below, with the python in it.
    python=$("$python" -c 'import sys; print(sys._base_executable)')
    echo "installing the pinned environment into $venv (a few minutes, about 7 GB)"
    if [ -e "$venv" ] && [ ! -f "$venv/.made-by-mmdense" ]; then
        echo "error: $venv exists and was not made by this script; remove it or choose VENV=..." >&2
        exit 1
    fi
    rm -rf "$venv"
    mkdir -p "$venv"
    touch "$venv/.made-by-mmdense"
    "$python" -m venv "$venv"
    # The pure-Python mmcv comes from an isolated build. pip's cache is left out of it, because a
    # wheel of mmcv that was compiled for another torch may lie there.
    pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-cache-dir --no-deps)
    "${pip[@]}" --requirement "$root/requirements.txt"
    # Both OpenCVs write the folder cv2; the one that needs no libGL must be the last to do so.
    "${pip[@]}" --force-reinstall "$(grep '^opencv-python-headless==' "$root/requirements.txt")"
    touch "$venv/.ready-$hash"
fi
installed="$root $(sha256sum < "$root/setup.py" | cut -c1-16)"
if [ "$(cat "$venv/.checkout" 2>/dev/null)" != "$installed" ] || [ ! -d "$root/.mim" ]; then
    "$venv/bin/python" -m pip --disable-pip-version-check install --quiet \
        --no-deps --no-build-isolation --editable "$root"
    echo "$installed" > "$venv/.checkout"
fi
