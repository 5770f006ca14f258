#!/usr/bin/env bash
# Runs every fuzz target for a few seconds, from its committed corpus and with a fixed seed, two at a time.
# Usage: fuzz/smoke.sh [SECONDS]
set -euo pipefail
export seconds=${1:-5}
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# Building takes longer than running: half as long without most optimisations.
CARGO_PROFILE_RELEASE_OPT_LEVEL=1 cargo fuzz build

smoke_one() {
    local target=$1 scratch
    scratch=$(mktemp -d)
    mkdir "$scratch/new"
    # New inputs go to the scratch folder: the committed corpus stays as it is.
    if ! "$(binary_of "$target")" -seed=1 -max_total_time="$seconds" -max_len="$(length_of "$target")" \
        -rss_limit_mb=2048 -timeout=20 -print_final_stats=1 -artifact_prefix="$scratch/" \
        "$scratch/new" "fuzz/corpus/$target" 2>"$scratch/log"; then
        tail -n 60 "$scratch/log"
        echo "fuzz target $target failed; its input is in $scratch"
        return 1
    fi
    local runs
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$scratch/log")
    echo "$target: ${runs:-no} runs"
    local inputs
    inputs=$(find "fuzz/corpus/$target" -type f | wc -l)
    if [ "${runs:-0}" -lt "$inputs" ]; then
        echo "fuzz target $target did not come through its corpus: ${runs:-no} runs of $inputs inputs; its log is $scratch/log"
        return 1
    fi
    rm -r "$scratch"
}
export -f smoke_one binary_of length_of

all_targets | xargs -P "${JOBS:-2}" -I{} bash -c 'set -euo pipefail; smoke_one {}'
echo "$(all_targets | wc -l) fuzz targets passed"
