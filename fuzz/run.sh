#!/usr/bin/env bash
# Fuzzes in earnest, two targets at a time. Usage: fuzz/run.sh [SECONDS] [TARGET...]
#
# Each target gets SECONDS (300), or RUNS executions where that is set and they are done earlier. What is found on the
# way is kept in fuzz/target/grown/TARGET and taken up again by the next run; logs are in fuzz/target/logs, inputs that
# fail in fuzz/artifacts/TARGET. At the end the corpora are minimised into fuzz/target/minimised; KEEP=1 copies the
# smallest of those inputs into fuzz/corpus. Exit code 1 if an input failed or a target did: one that does not start
# leaves no input.
set -euo pipefail
seconds=${1:-300}
[ $# -eq 0 ] || shift
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
jobs=${JOBS:-2}

cargo fuzz build

# Targets that came to their end, each a process of its own. All others failed, whatever became of them.
passed=$(mktemp)
trap 'rm -f "$passed"' EXIT

fuzz_one() {
    local target=$1 binary
    binary=$(binary_of "$target")
    mkdir -p "fuzz/target/grown/$target" "fuzz/artifacts/$target" fuzz/target/logs
    local status=passed
    "$binary" -max_total_time="$seconds" -runs="${RUNS:--1}" -max_len="$(length_of "$target")" -rss_limit_mb=2048 -timeout=20 \
        -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/" \
        "fuzz/target/grown/$target" "fuzz/corpus/$target" 2>"fuzz/target/logs/$target" || status=FAILED
    echo "$target $status: $(sed -n 's/^stat::number_of_executed_units: *//p' "fuzz/target/logs/$target") runs"
    [ "$status" = passed ] || return 0
    rm -rf "fuzz/target/minimised/$target"
    mkdir -p "fuzz/target/minimised/$target"
    "$binary" -merge=1 "fuzz/target/minimised/$target" "fuzz/corpus/$target" "fuzz/target/grown/$target" \
        2>/dev/null || echo "$target: its corpus could not be minimised"
    if [ -n "${KEEP:-}" ]; then
        fuzz/keep.sh "$target"
    fi
    echo "$target" >>"$passed"
}
export -f fuzz_one binary_of length_of
export seconds passed

targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(all_targets)
printf '%s\n' "${targets[@]}" | nice -n 10 xargs -P "$jobs" -I{} bash -c 'set -euo pipefail; fuzz_one {}' || true
status=0
for target in $(printf '%s\n' "${targets[@]}" | grep -vxFf "$passed"); do
    echo "$target failed; fuzz/target/logs/$target ends with:"
    tail -n 20 "fuzz/target/logs/$target" || true
    status=1
done
if [ -n "$(find fuzz/artifacts -type f -print -quit)" ]; then
    echo "inputs that failed:"
    find fuzz/artifacts -type f
    status=1
fi
exit "$status"
