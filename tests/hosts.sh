#!/usr/bin/env bash
# The backbones in libraries of others that are not in the environment, at pinned versions.
#   bash tests/hosts.sh FOLDER [PYTHON]      # or: make test-hosts
# The environment in FOLDER sees all packages of the one that PYTHON (default: .venv/bin/python) is of.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
venv=$1
python=${2:-$root/.venv/bin/python}
rm -rf "$venv"
"$python" -m venv "$venv"
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# addsitedir reads the .pth files there, too: those of editable installs.
"$python" -c 'import sysconfig; print("import site; site.addsitedir(\"%s\")" % sysconfig.get_path("purelib"))' \
    > "$site/environment.pth"
"$venv/bin/python" -m pip --disable-pip-version-check install --quiet \
    transformers==5.24.0 segmentation-models-pytorch==0.6.0
"$venv/bin/python" -m pip list --disable-pip-version-check | grep -E '^(torch|timm|transformers|seg\S+) '
cd "$root"
exec "$venv/bin/python" -m pytest -rs tests/test_hosts.py
