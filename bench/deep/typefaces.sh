#!/usr/bin/env bash
# Puts open typefaces that look like early print under bench/.typefaces: unpacked Debian packages and npm's @fontsource.
# Nothing is installed. Needs apt-get with its lists, dpkg and npm; bench/deep/lines.py early_printed_lines draws in them.
set -euo pipefail
mkdir -p "$(dirname "$0")/../.typefaces/debian"
cd "$(dirname "$0")/../.typefaces"
for package in junicode gotico-antiqua cardo elstob gamaliel blankenburg goudybookletter ebgaramond fanwood oldstandard; do
  [ -d "debian/$package" ] && continue
  apt-get download -qq "fonts-$package"
  dpkg -x fonts-"$package"_*.deb "debian/$package"
  rm fonts-"$package"_*.deb
done
for package in unifrakturmaguntia unifrakturcook texturina grenze-gotisch pirata-one jacquard-24 new-rocker fruktur \
  almendra jim-nightshade im-fell-english im-fell-dw-pica im-fell-double-pica im-fell-great-primer im-fell-french-canon; do
  [ -d "npm/$package" ] && continue
  packed=$(npm pack --silent "@fontsource/$package" | tail -n 1)
  mkdir -p "npm/$package"
  tar -xzf "$packed" -C "npm/$package"
  rm "$packed"
done
echo "$(find . -name '*.otf' -o -name '*.ttf' -o -name '*.woff' | wc -l) files of typefaces are in $PWD"
