//! The index and start-up at scale: repositories of so many blobs that only their metadata is made.
//!
//! ```text
//! cargo bench --bench index                                   1 million blobs in a temporary directory
//! cargo bench --bench index -- --blobs 100000000 --dir DIR    kept in DIR/100000000, and used again if it is there
//! cargo bench --bench index -- --live                         a snapshot needs them all: what a check and a prune take then
//! cargo bench --bench index -- --snapshots 10000 --dir DIR    a log of so many snapshots, kept in DIR/log-10000
//! ```
//!
//! A blob takes 60 bytes for its segment, twice that while segments are merged, and 50 for its pack's directory; the
//! latter are left out with `--without-packs`, and then only the index is checked and nothing is pruned. With `--live` another
//! 36 are needed for chunk lists, and as much again for temporary files in `TMPDIR`.
//!
//! Each phase runs in a process of its own, which says how long it took and the most memory it had.

mod make;
mod phases;
#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

/// What to measure, in this order.
const PHASES: [&str; 10] =
    ["open", "backup", "ls", "lookup", "lookup-2", "merge", "verify", "check", "prune", "rebuild"];

#[derive(Debug, Default)]
struct Arguments {
    blobs: Option<u64>,
    snapshots: Option<u64>,
    dir: Option<PathBuf>,
    /// Make no packs.
    without_packs: bool,
    /// Let a snapshot need all blobs.
    live: bool,
    /// Set for the processes that this one starts.
    phase: Option<String>,
    /// Only these phases; all where there are none.
    only: Vec<String>,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} takes a value"));
        let number = |text: String| text.parse().map_err(|error| format!("{text}: {error}"));
        match word.as_str() {
            "--bench" => {}
            "--blobs" => found.blobs = Some(number(value()?)?),
            "--snapshots" => found.snapshots = Some(number(value()?)?),
            "--dir" => found.dir = Some(value()?.into()),
            "--without-packs" => found.without_packs = true,
            "--live" => found.live = true,
            "--phase" => found.phase = Some(value()?),
            "--only" => found.only.push(value()?),
            other => return Err(format!("{other}: not an option")),
        }
    }
    Ok(found)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = arguments()?;
    if let Some(phase) = &arguments.phase {
        let dir = arguments.dir.ok_or("a phase needs --dir")?;
        let blobs = arguments.blobs.unwrap_or(0);
        return phases::run(phase, &dir, blobs, arguments.live);
    }
    let temporary = tempfile::tempdir()?;
    let base = arguments.dir.as_deref().unwrap_or(temporary.path());
    if let Some(snapshots) = arguments.snapshots {
        let dir = base.join(format!("log-{snapshots}"));
        if !dir.exists() {
            make::log(&dir, snapshots)?;
        }
        return start("open", &dir, 0, false);
    }
    let blobs = arguments.blobs.unwrap_or(1_000_000);
    let dir = base.join(format!("{blobs}{}", if arguments.live { "-live" } else { "" }));
    if !dir.exists() {
        make::blobs(&dir, blobs, !arguments.without_packs, arguments.live)?;
    }
    for phase in PHASES {
        let takes_packs = matches!(phase, "check" | "prune" | "rebuild");
        let is_wanted = match arguments.only.is_empty() {
            true => takes_packs || !arguments.live,
            false => arguments.only.iter().any(|only| only == phase),
        };
        if is_wanted && !(takes_packs && arguments.without_packs) {
            start(phase, &dir, blobs, arguments.live)?;
        }
    }
    Ok(())
}

fn start(phase: &str, dir: &Path, blobs: u64, live: bool) -> Result<(), Box<dyn std::error::Error>> {
    let status = Command::new(std::env::current_exe()?)
        .args(["--phase", phase, "--blobs", &blobs.to_string(), "--dir"])
        .arg(dir)
        .args(live.then_some("--live"))
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("phase {phase} failed: {status}").into()) }
}
