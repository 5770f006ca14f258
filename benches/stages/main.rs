//! The stages of a backup and the whole job, in bytes per second or items per second, with divan:
//!
//! ```text
//! cargo bench --bench stages                     all of them
//! cargo bench --bench stages -- seal             those whose path has this in it
//! ```
//!
//! One program, since linking one takes longer than most of its benchmarks. `benches/README.md` has the figures and what limits
//! them. With `--kernels` it lists the kernels of `counts`, with `--kernel NAME` it runs one: for callgrind.

mod block;
mod chunk;
mod counts;
mod hash;
mod job;
mod lookup;
mod plan;
mod seal;
#[path = "../support/mod.rs"]
mod support;
mod walk;

use std::process::ExitCode;

/// Counts allocations beside the time: the kernels of a chunk are to make none.
#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["--kernels"] => counts::names().for_each(|name| println!("{name}")),
        ["--kernel", name] => {
            if !counts::run(name) {
                eprintln!("{name}: not a kernel, or not one for this processor; --kernels lists them");
                return ExitCode::FAILURE;
            }
        }
        _ => support::scratch::run_benchmarks(),
    }
    ExitCode::SUCCESS
}
