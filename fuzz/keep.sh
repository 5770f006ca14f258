#!/usr/bin/env bash
# Copies the smallest minimised inputs of a target into its committed corpus, beside the seeds made of valid objects:
# 40 files and 200 KB in all. Usage: fuzz/keep.sh TARGET
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
corpus=fuzz/corpus/$1
find "$corpus" -type f -name 'found-*' -delete
count=$(find "$corpus" -type f | wc -l)
bytes=$(find "$corpus" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum + 0 }')
# Smallest first, but every n-th of them, so that longer inputs have their share.
mapfile -t found < <(find "fuzz/target/minimised/$1" -type f -printf '%s %p\n' | sort -n | cut -d' ' -f2-)
room=$((40 - count))
[ "$room" -gt 0 ] && [ "${#found[@]}" -gt 0 ] || exit 0
step=$(((${#found[@]} + room - 1) / room))
for ((i = 0; i < ${#found[@]}; i += step)); do
    size=$(stat -c %s "${found[i]}")
    ((bytes + size <= 200000)) || continue
    bytes=$((bytes + size))
    name=$(sha1sum "${found[i]}" | cut -c1-12)
    cp "${found[i]}" "$corpus/found-$name"
done
