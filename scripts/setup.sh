#!/usr/bin/env bash
# Make .venv and fill it from a lock file. Usage: scripts/setup.sh run|dev
#
# A lock needs no resolver (minutes of CPU), so pip installs it with --no-deps; modules are compiled on first import
# rather than all at once (--no-compile), which spares a fresh machine another minute.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:?usage: scripts/setup.sh run|dev}
venv=${TIDEMILL_VENV:-.venv}
python=$venv/bin/python

say() { printf '%s\n' "$*" >&2; }

usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.10 python; do
    if usable "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  say "Tidemill needs Python 3.10 or newer; none of python3, python3.13 … python3.10 is. Set PYTHON=/path/to/python3."
  return 1
}

if ! usable "$python"; then
  base=$(find_python)
  if ! "$base" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    # Debian keeps these two in a package of their own.
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      say "Installing python3-venv …"
      { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv; } >&2
    else
      say "This Python cannot make virtual environments; install its venv module (Debian: python3-venv)."
      exit 1
    fi
  fi
  say "Making $venv with $("$base" --version) …"
  "$base" -m venv --clear "$venv"
fi

suffix=$("$python" -c 'import sys; print("-py310" if sys.version_info < (3, 11) else "")')
case $kind in
  run) lock=requirements-run$suffix.lock ;;
  dev) lock=requirements$suffix.lock ;;
  *)
    say "usage: scripts/setup.sh run|dev"
    exit 2
    ;;
esac

say "Installing $lock …"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
"$python" -m pip install -qq --no-deps --no-compile -r "$lock"
deep=requirements-deep$suffix.lock
if [ "$kind" = dev ] && [ -f "$deep" ]; then
  say "Installing $deep …"
  "$python" -m pip install -qq --no-compile -r "$deep"  # with dependencies: torch brings other ones where there is a GPU
fi
"$python" -m pip install -qq --no-deps --no-build-isolation --editable .

# Where Python may not keep what it compiled, every process would compile all its modules anew: 6 s of CPU for a few imports.
if [ -n "${PYTHONDONTWRITEBYTECODE:-}" ]; then
  say "Compiling, since PYTHONDONTWRITEBYTECODE is set …"
  site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  "$python" -m compileall -q -j 0 "$site" >/dev/null || true  # a package may hold files for other Pythons
fi
