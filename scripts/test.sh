#!/usr/bin/env bash
# Run pytest with the services that its tests need. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${TIDEMILL_VENV:-.venv}/bin

stop() {
  TIDEMILL_SERVICES=$1 scripts/services.sh stop
  rm -rf -- "$1"
}

# A run that was killed outright could not stop its server.
for left in "$PWD"/.services/run-*; do
  if [ -d "$left" ] && ! kill -0 "${left##*-}" 2>/dev/null; then
    stop "$left"
  fi
done

export TIDEMILL_SERVICES=$PWD/.services/run-$$
trap 'stop "$TIDEMILL_SERVICES"' EXIT
scripts/services.sh start
# shellcheck source=/dev/null
. "$TIDEMILL_SERVICES/env"
# One numeric thread per test process: the processes share the cores.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1}
# Not exec: the trap must outlive pytest.
"$bin/python" -m pytest "$@" </dev/null
