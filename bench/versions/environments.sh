#!/usr/bin/env bash
# Makes the environment of the rivals under bench/.environments (once). Tidemill uses .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
[ -x .environments/versions/bin/python ] || "$python" -m venv .environments/versions
.environments/versions/bin/pip install -q "deltalake==1.6.6" "pylance==14.0.2" "pyarrow>=20" numpy
