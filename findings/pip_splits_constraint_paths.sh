#!/usr/bin/env bash
# pip 26.0 takes a PIP_CONSTRAINT with a blank in its path for two files, and an address for one.
#
# Behaviour: values of variables are split at blanks, so that a constraints file below "a folder"
# cannot be named by its path, quoted or not; file:///...a%20folder/... names it.
# Output seen: path 1, quoted path 1, address 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pip==26.0
mkdir "$folder/a folder"
echo "six==1.17.0" >"$folder/a folder/constraints.txt"
status() {
    local status=0
    PIP_CONSTRAINT=$1 "$folder/venv/bin/pip" install --quiet --dry-run six >"$folder/log" 2>&1 ||
        status=$?
    echo "$status"
}
path="$folder/a folder/constraints.txt"
seen="path $(status "$path"), quoted path $(status "'$path'"), address $(status "file://${path// /%20}")"
echo "$seen"
[ "$seen" = "path 1, quoted path 1, address 0" ]
