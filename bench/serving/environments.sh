#!/usr/bin/env bash
# Makes an environment for each rival under bench/.environments (once). Tidemill uses .venv; wrk comes from the system.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
make() {
  local name=$1
  shift
  [ -f ".environments/serving-$name/done" ] && return
  rm -rf ".environments/serving-$name"
  "$python" -m venv ".environments/serving-$name"
  ".environments/serving-$name/bin/pip" install -q onnxruntime numpy "$@"
  touch ".environments/serving-$name/done"
}
make fastapi fastapi "uvicorn[standard]"
make litserve "litserve==0.2.19"
# With uvloop 0.22 its worker process dies at start on Python 3.11 ("There is no current event loop").
make mlserver "mlserver==1.7.1" "uvloop<0.22"
make bentoml "bentoml==1.4.39"
