#!/bin/sh
# Checks the test vectors with the independent reader, restores every golden repository with it, and compares.
# usage: check.sh [VENV]     VENV is made if it is not there; a temporary one is used otherwise.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
# Restored directories may be read-only.
trap 'chmod -R u+rwX "$work"; rm -rf "$work"' EXIT

venv=${1:-$work/venv}
[ -x "$venv/bin/python3" ] || python3 -m venv "$venv"
"$venv/bin/python3" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
python="$venv/bin/python3 -B"
reader="$here/strongroom_reader.py"

$python "$reader" vectors "$project/format-spec/vectors"

count=0
for golden in "$project"/tests/golden/v1*/; do
    [ -d "$golden/repo" ] || { echo "no golden repository in $golden" >&2; exit 1; }
    echo "golden repository $(basename "$golden")"
    for password in "$golden"/*password; do
        $python "$reader" log "$golden/repo" --password-file "$password"
    done
    for index in segments packs; do
        count=$((count + 1))
        $python "$reader" restore "$golden/repo" "$work/$count" --password-file "$golden/password" --index $index
        $python "$here/manifest.py" compare "$golden/manifest.json" "$work/$count"
    done
    for secret in "$golden"/append-only-secret; do
        [ -e "$secret" ] || continue
        if $python "$reader" restore "$golden/repo" "$work/append" --password-file "$secret" 2>/dev/null; then
            echo "an append-only password has restored something" >&2
            exit 1
        fi
    done
    printf 'not the password' >"$work/wrong"
    if $python "$reader" log "$golden/repo" --password-file "$work/wrong" 2>/dev/null; then
        echo "a wrong password was accepted" >&2
        exit 1
    fi
done
[ "$count" -gt 0 ] || { echo "no golden repository found" >&2; exit 1; }
echo "all vectors and $count restores are right"
