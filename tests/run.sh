#!/usr/bin/env bash
# Runs all tests: formatting, lints, unit and integration tests (which replay the fuzz corpora), the independent
# reader, the demonstration on a small scale, a short slice of each campaign (kills, power cuts, faults, turned bits, many processes),
# real databases and an application run by plans, each fuzz target for some seconds, and the instructions that the hot kernels take. Installs
# what they need; wants the Rust toolchain, C and C++ compilers and Python 3. The campaigns in full, some hours: tests/campaigns/run.sh.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
export RUST_BACKTRACE=1
# Everything is built once: preparing to build parts of it again takes longer.
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}

# Tests of attributes, ACLs and mounts use these where they can be had; without them those tests say SKIPPED.
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  missing=
  for tool in getfattr:attr setfacl:acl rsync:rsync strace:strace mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs chromium:chromium systemd-analyze:systemd valgrind:valgrind; do
    command -v "${tool%%:*}" >/dev/null || missing="$missing ${tool##*:}"
  done
  if [ -n "$missing" ]; then
    # shellcheck disable=SC2086  # a list of package names
    (apt-get update -q && apt-get install -y -q --no-install-recommends $missing) >/dev/null ||
      echo "could not install:$missing" >&2
  fi
fi

step() { printf '\n=== %s\n' "$*"; }

step "format and lints"
cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace --locked

step "independent reader: vectors and golden repositories"
format-spec/reader/check.sh

step "the main job on real input"
tests/demo/run.sh --size 192

binary=${CARGO_TARGET_DIR:-$root/target}/release/strongroom

said=$(mktemp)
trap 'rm -f "$said"' EXIT
step "campaigns, a slice of each"
tests/campaigns/run.sh --short "$binary" 2>&1 | tee "$said"

step "fuzz targets, ten seconds each"
fuzz/smoke.sh 10

step "plans with real databases, a broker and an application"
tests/components/install.sh
tests/components/run.py --binary "$binary" 2>&1 | tee -a "$said"

step "instructions of the hot kernels"
if command -v valgrind >/dev/null; then
  benches/counts/compare 2>&1 | tee -a "$said"
else
  echo "SKIPPED counts: cannot count instructions: valgrind is not installed" | tee -a "$said"
fi

step "tests"
cargo test --workspace --locked 2>&1 | tee -a "$said"

# The campaigns choose tests by their names, and the runner is content with none.
for name in $(sed -n 's/^[^#]*cargo test .* //p' tests/campaigns/run.sh); do
  grep -q "^test .*$name" "$said" || { echo "tests/campaigns/run.sh asks for $name, and no test has that in its name" >&2; exit 1; }
done

# The runner counts a test as passed that says it cannot be made here, behind its name if tests go one after the other; a campaign goes on with
# the next, and so do the components.
skipped='^SKIPPED\|SKIPPED [^ ]*: cannot'
printf '\n%s tests could not be made here\n' "$(grep -c "$skipped" "$said" || true)"
grep "$skipped" "$said" || true
