#!/usr/bin/env bash
# Makes the environment of the rival under bench/.environments (once). Tidemill, DuckDB and Polars use .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
[ -x .environments/feast/bin/feast ] || {
  "$python" -m venv .environments/feast
  .environments/feast/bin/pip install -q "feast[duckdb,redis]==0.67.0"
}
