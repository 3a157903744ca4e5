#!/usr/bin/env bash
# Fetches the open Noto typefaces (SIL Open Font License) into bench/.environments/typefaces (once), as Debian packs
# them; where its lists are old, `apt-get update` comes first.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d .environments/typefaces ] || {
  mkdir -p .environments/typefaces.part
  cd .environments/typefaces.part
  apt-get download fonts-noto-core
  dpkg -x fonts-noto-core_*.deb .
  rm fonts-noto-core_*.deb
  cd ..
  mv typefaces.part typefaces
}
