#!/usr/bin/env bash
# All campaigns, one after the other. `tests/campaigns/run.sh` is the whole of it: some hours on two cores. `--short` is the slice that
# tests/run.sh makes, some minutes. `SEED=7` begins with other numbers; MINUTES=n fuzzes each target for so long (15),
# or for RUNS=n executions (10,000,000) where they are done earlier.
#
#   cargo build --release && tests/campaigns/run.sh [--short | --allow-skips] [BINARY]
#
# What cannot be made here, for want of root or a tool, says SKIPPED and is passed over; the whole of it then ends with 1 and names what it lacks,
# unless --allow-skips was given.
#
# For days: STRONGROOM_SIMULATION_SEEDS=5000000 and STRONGROOM_POWER_STATES=5000000 with the cargo commands below, and fuzz/run.sh 86400.
#
# The ordinary tests read these variables, which make more of them:
#   STRONGROOM_POWER_STATES=n       states after simulated power cuts (5,000); STRONGROOM_POWER_SEED=n begins with another history
#   STRONGROOM_FAULTS_EVERY=n       lets every n-th operation fail in turn (23); STRONGROOM_FAULT_SEED=n takes another history
#   STRONGROOM_EXCHANGES_EVERY=n    tries every n-th way to put objects, or parts of them, in each other's place (41)
#   STRONGROOM_ALL_BITS=1           turns every bit of a small repository, not one of each byte
#   STRONGROOM_PARITY_CASES=n       cases of damage that parity has to make good (300)
#   STRONGROOM_SIMULATION_SEEDS=n   schedules of several processes (2,000); STRONGROOM_SIMULATION_SEED=n shows one, run
#                                   STRONGROOM_SIMULATION_TIMES=n times
#   STRONGROOM_MODEL_RUNS=n         runs of the engine beside a plain model of it; STRONGROOM_MODEL_SEED=n shows one
#   STRONGROOM_MODEL_MINUTES=n      time for the model of the protocol with everybody in it (an ignored test: 20)
#   STRONGROOM_RACE_SECONDS=n       time for each race of a restore with somebody who changes its target (0.05)
#   STRONGROOM_CASES=n              inputs on which scanners for cut points are compared (an ignored test: chunk/equality.rs)
set -euo pipefail
cd "$(dirname "$0")/../.."
short=
allow_skips=
case "${1:-}" in
  --short) short=1; shift ;;
  --allow-skips) allow_skips=1; shift ;;
esac
binary=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/release/strongroom}")
seed=${SEED:-1}
here=tests/campaigns
# full and short figures of each
pick() { if [ -n "$short" ]; then echo "$2"; else echo "$1"; fi; }
step() { printf '\n--- %s\n' "$*"; }

said=$(mktemp)
trap 'rm -f "$said"' EXIT
{
step "power cuts of real file systems"
python3 $here/power_cut.py --binary "$binary" --cuts "$(pick 300 10)" --seed "$seed"
step "kills of every command"
python3 $here/kills.py --binary "$binary" --kills "$(pick 500 34)" --seed "$seed"
step "kills of backups, and what the next one takes over"
python3 $here/kill_backup.py --binary "$binary" --kills "$(pick 50 5)" --size "$(pick 256 32)" --seed "$seed"
step "faults in system calls"
python3 $here/injected.py --binary "$binary" --every "$(pick 1 11)" --seed "$seed"
step "turned bits"
python3 $here/flips.py --binary "$binary" --flips "$(pick 10000 200)" --size "$(pick 256 32)" --seed "$seed"
step "many processes at once"
python3 $here/together.py --binary "$binary" --seconds "$(pick 1800 60)" --seed "$seed"
step "little memory"
# shellcheck disable=SC2046  # an option, or nothing
python3 $here/memory.py --binary "$binary" $(pick "" --short) --seed "$seed"
[ -z "$short" ] || exit 0

# The rest is part of the ordinary tests, with fewer cases.
step "simulated power cuts, faults, damage, parity, schedules"
STRONGROOM_POWER_STATES=200000 cargo test --release -p strongroom --lib -- --nocapture power_cuts_at_every_step
STRONGROOM_FAULTS_EVERY=1 cargo test --release -p strongroom --lib -- --nocapture fault_tests
STRONGROOM_CASES=100000 cargo test --release -p strongroom --lib -- --nocapture --ignored chunk::equality
STRONGROOM_ALL_BITS=1 cargo test --release -p strongroom --lib -- --nocapture damage_tests
STRONGROOM_EXCHANGES_EVERY=1 cargo test --release -p strongroom --lib -- --nocapture exchange_tests
STRONGROOM_PARITY_CASES=2000 cargo test --release -p strongroom --lib -- --nocapture all_damage_up_to_the_capacity
SEEDS=2000 cargo test --release -p strongroom --lib -- --nocapture --ignored many_random_nights
STRONGROOM_SIMULATION_SEEDS=200000 cargo test --release -p strongroom --test engine -- --nocapture nothing_is_lost_and_nobody_is_blocked
# One after the other: each takes gigabytes.
cargo test --release -p strongroom --test engine -- --nocapture --ignored --test-threads 1 commit_log
step "restores beside somebody who changes the target"
STRONGROOM_RACE_SECONDS=10 cargo test --release -p strongroom --lib -- --nocapture race_tests::nothing_outside
step "file systems"
if [ "$(id -u)" = 0 ]; then $here/file_systems.sh "$binary"; else echo "SKIPPED file systems: cannot mount them: not root"; fi
step "rivals: the same damage, kills and full disks for each"
has() { command -v "$1" >/dev/null; }
if has restic && has rustic && { has borg1 || has borg; }; then
  rivals=restic,rustic,borg1
  python3 tests/rivals/honesty.py --binary "$binary" --tools "strongroom,strongroom-anew,$rivals" --require "$rivals" --seed "$seed"
else
  # What strongroom itself must not do can be seen without them.
  echo "SKIPPED rivals: restic, rustic or borg is not in PATH"
  python3 tests/rivals/honesty.py --binary "$binary" --tools strongroom,strongroom-anew --seed "$seed"
fi
step "fuzzing"
RUNS=${RUNS:-10000000} fuzz/run.sh "$((60 * ${MINUTES:-15}))"
} 2>&1 | tee "$said"

# Who runs the slice counts what it lacks.
[ -z "$short" ] || exit 0
if skipped=$(grep SKIPPED "$said"); then
  printf '\n%s rows or parts of them could not be made here:\n%s\n' "$(wc -l <<<"$skipped")" "$skipped"
  [ -n "$allow_skips" ] || exit 1
fi
