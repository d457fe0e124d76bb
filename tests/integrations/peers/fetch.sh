#!/usr/bin/env bash
# Fetches the sources of other libraries, as of the commits that the adapters were tested with, into the folder given:
# mammoth and PyCIL / PILOT are no packages, and the packages of Avalanche and TorchRL have no tests.
set -euo pipefail
folder="${1:?usage: fetch.sh FOLDER}"
mkdir -p "$folder"
while read -r name commit address; do
  [ -d "$folder/$name" ] && continue
  git init --quiet "$folder/.$name"
  if timeout 60 git -C "$folder/.$name" fetch --quiet --depth 1 "$address" "$commit" &&
    git -C "$folder/.$name" checkout --quiet FETCH_HEAD; then
    mv "$folder/.$name" "$folder/$name"
  else
    rm -rf "$folder/.$name"
    echo "$name cannot be fetched from $address: its tests are left out." >&2
  fi
done <<'SOURCES'
avalanche eb075be393e1f458b2c352514ff6c17b5a2c0f4e https://github.com/ContinualAI/avalanche
mammoth e75a491c69fd729edeb01431afb753d9157d9a81 https://github.com/aimagelab/mammoth
LAMDA-PILOT 5240714d3d6071aca824f8aed4a92a46ac6f883c https://github.com/LAMDA-CL/LAMDA-PILOT
PyCIL f3509b8ca3f20660ce4aa13f19d5283de81b4b35 https://github.com/LAMDA-CL/PyCIL
rl ae9719f17b1517af5c2523a36c4616f003ee55cf https://github.com/pytorch/rl
SOURCES
