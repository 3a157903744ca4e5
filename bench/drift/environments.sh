#!/usr/bin/env bash
# Makes the environment of the rival under bench/.environments (once). Tidemill uses .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
[ -x .environments/evidently/bin/evidently ] || {
  "$python" -m venv .environments/evidently
  .environments/evidently/bin/pip install -q "evidently==0.7.23" "pandas<3" pyarrow
}
