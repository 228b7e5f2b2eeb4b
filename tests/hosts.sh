#!/usr/bin/env bash
# What needs libraries that are not in the environment, at pinned versions: the backbones in those of
# others, and the page of tools/explore.py in a browser.
#   bash tests/hosts.sh FOLDER [PYTHON [arguments of pytest]]      # or: make test-hosts
# The environment in FOLDER sees all packages of the one that PYTHON (default: .venv/bin/python) is of.
# Where they cannot be installed it ends with MISSING (default: 1).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
venv=$1
python=${2:-$root/.venv/bin/python}
shift $(($# < 2 ? $# : 2))
rm -rf "$venv"
"$python" -m venv "$venv"
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# addsitedir reads the .pth files there, too: those of editable installs.
"$python" -c 'import sysconfig; print("import site; site.addsitedir(\"%s\")" % sysconfig.get_path("purelib"))' \
    > "$site/environment.pth"
if ! "$venv/bin/python" -m pip --disable-pip-version-check install --quiet \
    transformers==5.24.0 segmentation-models-pytorch==0.6.0 gradio==6.31.0 playwright==1.65.2; then
    echo 'these libraries cannot be installed here: nothing is tested' >&2
    exit "${MISSING:-1}"
fi
"$venv/bin/python" -m pip list --disable-pip-version-check | grep -E '^(torch|timm|transformers|seg\S+|gradio) '
cd "$root"
exec "$venv/bin/python" -m pytest -rs tests/test_hosts.py tests/inference/test_explore_page.py \
    tests/tools/test_explore_tool.py "$@"
