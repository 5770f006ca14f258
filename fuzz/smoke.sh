#!/usr/bin/env bash
# Runs every fuzz target for a few seconds, from its committed corpus. Usage: fuzz/smoke.sh [SECONDS]
set -euo pipefail
seconds=${1:-5}
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

cargo fuzz build
passed=0
for target in $(all_targets); do
    scratch=$(mktemp -d)
    log=$scratch/log
    mkdir "$scratch/new"
    # New inputs go to the scratch folder: the committed corpus stays as it is.
    if ! "$(binary_of "$target")" -seed=1 -max_total_time="$seconds" -max_len="$(length_of "$target")" \
        -rss_limit_mb=2048 -timeout=20 -print_final_stats=1 -artifact_prefix="$scratch/" \
        "$scratch/new" "fuzz/corpus/$target" 2>"$log"; then
        tail -n 60 "$log"
        echo "fuzz target $target failed; its input is in $scratch"
        exit 1
    fi
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs"
    rm -r "$scratch"
    passed=$((passed + 1))
done
echo "$passed fuzz targets passed"
