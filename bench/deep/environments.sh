#!/usr/bin/env bash
# Makes an environment for AutoKeras under bench/.environments (once); with `multimodal`, one for AutoGluon MultiModal.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if [ "${1:-autokeras}" = multimodal ]; then
  # 6 GB: timm and torchvision load beside the build of torch that they were made for, so pip must not find another.
  [ -x .environments/multimodal/bin/python ] || {
    "$python" -m venv .environments/multimodal
    env -u PIP_FIND_LINKS PIP_CONFIG_FILE=/dev/null .environments/multimodal/bin/pip install -q autogluon.multimodal==1.6.3
  }
  exit
fi
[ -x .environments/autokeras/bin/python ] || {
  "$python" -m venv .environments/autokeras
  .environments/autokeras/bin/pip install -q autokeras==3.0.0 tensorflow-cpu==2.19.1 keras==3.8.0 pillow
}
