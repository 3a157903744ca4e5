#!/usr/bin/env bash
# Everything that reads the code without running it.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${TIDEMILL_VENV:-.venv}/bin
"$bin/lint-imports" --no-cache
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
