#!/usr/bin/env bash
# Puts the open typefaces that other open images are drawn in under bench/.environments/typefaces: unpacked Debian
# packages (letters of a hundred scripts, types of early print, and plain ones) and npm's @fontsource. Nothing is installed. Needs
# apt-get with its lists (where they are old, `apt-get update` comes first), dpkg and npm.
set -euo pipefail
mkdir -p "$(dirname "$0")/../.environments/typefaces"
cd "$(dirname "$0")/../.environments/typefaces"
for package in noto-core junicode gotico-antiqua cardo elstob gamaliel blankenburg goudybookletter ebgaramond fanwood \
  oldstandard cantarell dejavu-core firacode hack inconsolata lato liberation noto-mono open-sans \
  roboto-unhinted; do
  [ -d "debian/$package" ] && continue
  rm -f fonts-"$package"_*.deb
  apt-get download -qq "fonts-$package"
  rm -rf part
  dpkg -x fonts-"$package"_*.deb part
  rm fonts-"$package"_*.deb
  mkdir -p debian
  mv part "debian/$package"
done
for package in unifrakturmaguntia unifrakturcook texturina grenze-gotisch pirata-one jacquard-24 new-rocker fruktur \
  almendra jim-nightshade im-fell-english im-fell-dw-pica im-fell-double-pica im-fell-great-primer im-fell-french-canon; do
  [ -d "npm/$package" ] && continue
  packed=$(npm pack --silent "@fontsource/$package" | tail -n 1)
  rm -rf part
  mkdir -p part npm
  tar -xzf "$packed" -C part
  rm "$packed"
  mv part "npm/$package"
done
echo "$(find . -name '*.otf' -o -name '*.ttf' -o -name '*.woff' | wc -l) files of typefaces are in $PWD"
