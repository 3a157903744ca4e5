#!/usr/bin/env bash
# Makes an environment for AutoKeras under bench/.environments (once). AutoGluon MultiModal needs torchvision and timm.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
[ -x .environments/autokeras/bin/python ] || {
  "$python" -m venv .environments/autokeras
  .environments/autokeras/bin/pip install -q autokeras==3.0.0 tensorflow-cpu==2.19.1 keras==3.8.0 pillow
}
