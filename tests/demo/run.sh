#!/usr/bin/env bash
# The main job on real input: back up, change, back up again, check, restore, compare.
#
#   tests/demo/run.sh [--size MIB] [--work DIR]
#
# Makes an application data directory (default 2048 MiB) from what this machine has, in a temporary directory
# that is removed at the end (--work keeps it). Ends with exit code 0 only if the restored trees are identical to the originals.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
size=2048 work=
while [ $# -gt 0 ]; do
  case $1 in
    --size) size=$2; shift 2 ;;
    --work) work=$2; shift 2 ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done
if [ -z "$work" ]; then
  work=$(mktemp -d "${TMPDIR:-/var/tmp}/strongroom-demo.XXXXXX")
  trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"

cargo build --release --manifest-path "$root/Cargo.toml" -p strongroom-cli
strongroom=${CARGO_TARGET_DIR:-$root/target}/release/strongroom
export STRONGROOM_NO_STATE=1 STRONGROOM_REPOSITORY=$work/repository STRONGROOM_PASSWORD='correct horse battery staple'

step() { printf '\n== %s\n' "$*"; }

step "making $size MiB of application data"
python3 "$here/make_data.py" create "$work/data" --size "$size"

step "init, first backup"
"$strongroom" init
time "$strongroom" backup "$work/data"
cp -a "$work/data" "$work/day1"

step "a night's change, second backup"
python3 "$here/make_data.py" night "$work/data"
time "$strongroom" backup --tag nightly "$work/data"

step "snapshots"
"$strongroom" snapshots

step "check, reading all data"
time "$strongroom" check --read-data

step "restore both days and compare"
first=$("$strongroom" snapshots --json | python3 -c 'import json,sys; print(json.load(sys.stdin)[0]["id"])')
time "$strongroom" restore "latest:$work/data" --target "$work/restored2"
"$strongroom" restore "$first:$work/data" --target "$work/restored1" --verify
python3 "$here/compare_trees.py" "$work/data" "$work/restored2"
python3 "$here/compare_trees.py" "$work/day1" "$work/restored1"

step "statistics"
"$strongroom" stats
step "done: both restored trees are identical to the originals"
