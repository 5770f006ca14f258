//! `config recover`: a plan from a snapshot that was made by it, for a host that has nothing left.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use serde_json::json;
use strongroom::format::provenance::Provenance;
use strongroom::format::snapshot::Snapshot;
use strongroom::ids::{PlanHash, SnapshotId};
use strongroom::monitor::Silent;
use strongroom::repo::Repository;
use strongroom::restore::{self, RestoreOptions};
use strongroom_ops::plan::load::hash;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::object;

const AFTER_HELP: &str = "\
Every snapshot of `strongroom run` holds the files of the plan that made it. Nothing is written over:
the folder must not have files of the same names.

Example:
  strongroom -r /backup/repo config recover --output ./recovered";

/// Arguments of `config recover`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// An id or its first digits [default: the latest complete snapshot that has a plan]
    #[arg(value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    /// The folder to write the plan's files into
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

/// Writes the plan's files.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let repository = context.open_for_snapshots()?;
    let (id, snapshot, provenance) = find(args.snapshot.as_deref(), &repository)?;
    let paths: Vec<&Path> =
        provenance.plan_files.iter().map(|path| Path::new(OsStr::from_bytes(path))).collect();
    // Whoever can write to the repository says what stands there.
    let is_plain = |path: &&Path| {
        path.components().skip(1).all(|part| matches!(part, Component::Normal(_))) && path.is_absolute()
    };
    if let Some(path) = paths.iter().find(|path| !is_plain(path)) {
        let message = format!("snapshot {} names {} as a file of its plan", id.short(), path.display());
        return Err(Failure::new("plan-changed", message).hint("choose another snapshot"));
    }
    let texts = paths
        .iter()
        .map(|path| content(&repository, &snapshot, path))
        .collect::<Result<Vec<Vec<u8>>, Failure>>()?;
    if PlanHash::from_bytes(hash(texts.iter().map(Vec::as_slice))) != provenance.plan {
        let message = format!("the plan in snapshot {} is not the one that made it", id.short());
        return Err(Failure::new("plan-changed", message).hint(
            "its files were part of what was backed up, and were changed meanwhile: choose another snapshot",
        ));
    }
    let written = write(&args.output, &paths, &texts)?;
    if context.output.json() {
        let files: Vec<_> = written.iter().map(|path| path.to_string_lossy()).collect();
        context.output.object(object(json!({
            "type": "summary",
            "snapshot_id": id,
            "domain": provenance.domain,
            "plan": provenance.plan,
            "files": files,
        })))?;
    } else {
        for path in &written {
            context.output.text(path.display().to_string());
        }
        context.output.text(format!("the plan of snapshot {} is recovered", id.short()));
    }
    Ok(Exit::Ok)
}

fn find(name: Option<&str>, repository: &Repository) -> Result<(SnapshotId, Snapshot, Provenance), Failure> {
    let planned = |(id, snapshot): (SnapshotId, Snapshot)| {
        let provenance = snapshot.provenance.clone()?;
        Some((id, snapshot, provenance))
    };
    let (found, which) = match name {
        Some(name) => {
            let found = repository.find_snapshot(name)?;
            (planned(found), format!("snapshot {name}"))
        }
        None => (
            newest_planned(repository.readable_snapshots().0).and_then(planned),
            "no complete snapshot in the repository".into(),
        ),
    };
    let message = match name {
        Some(_) => format!("{which} was made without a plan"),
        None => format!("{which} was made by a plan"),
    };
    found.ok_or_else(|| {
        Failure::new("no-plan", message).hint("`strongroom run` makes snapshots that hold their plan")
    })
}

/// The newest snapshot that holds its plan for sure: a partial one may have been cut short before that.
fn newest_planned(snapshots: Vec<(SnapshotId, Snapshot)>) -> Option<(SnapshotId, Snapshot)> {
    let is_planned = |snapshot: &Snapshot| !snapshot.partial && snapshot.provenance.is_some();
    snapshots.into_iter().rev().find(|(_, snapshot)| is_planned(snapshot))
}

/// The content of a plan's file.
fn content(repository: &Repository, snapshot: &Snapshot, path: &Path) -> Result<Vec<u8>, Failure> {
    let scratch =
        tempfile::tempdir().map_err(|error| Failure::io("cannot make a temporary folder", &error))?;
    let options = RestoreOptions { threads: 1, ..RestoreOptions::default() };
    let from = path.as_os_str().as_bytes();
    let report = restore::run(repository, snapshot, from, scratch.path(), &options, &Silent)?;
    if report.errors > 0 {
        return Err(Failure::damage("blob-missing", format!("{} cannot be restored", path.display())));
    }
    let file = scratch.path().join(path.file_name().unwrap_or_default());
    fs::read(&file).map_err(|error| Failure::io(format_args!("cannot read {} again", path.display()), &error))
}

/// Writes the files below `folder`, as they lie to each other.
fn write(folder: &Path, paths: &[&Path], texts: &[Vec<u8>]) -> Result<Vec<PathBuf>, Failure> {
    let mut common = paths.first().and_then(|path| path.parent()).unwrap_or(Path::new("/"));
    while !paths.iter().all(|path| path.starts_with(common)) {
        common = common.parent().unwrap_or(Path::new("/"));
    }
    let places: Vec<_> =
        paths.iter().map(|path| folder.join(path.strip_prefix(common).unwrap_or(path))).collect();
    if let Some(taken) = places.iter().find(|path| path.symlink_metadata().is_ok()) {
        let message = format!("{} exists already; nothing was written", taken.display());
        return Err(Failure::new("target", message).hint("name another folder with --output"));
    }
    for (path, text) in places.iter().zip(texts) {
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent)
            .and_then(|()| fs::File::create_new(path))
            .and_then(|mut file| std::io::Write::write_all(&mut file, text).and_then(|()| file.sync_all()))
            .map_err(|error| Failure::io(format_args!("cannot write {}", path.display()), &error))?;
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom::format::provenance::Consistency;
    use strongroom::format::snapshot::SnapshotSummary;
    use strongroom::format::tree::Timestamp;
    use strongroom::ids::BlobId;

    fn snapshot(number: u8, partial: bool, is_planned: bool) -> (SnapshotId, Snapshot) {
        let provenance = is_planned.then(|| Provenance {
            domain: "x".into(),
            consistency: Consistency::Fuzzy,
            plan: PlanHash::from_bytes([0; 32]),
            plan_files: Vec::new(),
            facts: Vec::new(),
        });
        let snapshot = Snapshot {
            time: Timestamp { seconds: i64::from(number), nanos: 0 },
            hostname: "box".into(),
            username: "root".into(),
            paths: Vec::new(),
            tree: BlobId::from_bytes([1; 32]),
            tags: Vec::new(),
            parent: None,
            partial,
            repaired: None,
            origin: None,
            provenance,
            excludes: Vec::new(),
            program: "test".into(),
            summary: SnapshotSummary::default(),
        };
        (SnapshotId::new(BlobId::from_bytes([number; 32])), snapshot)
    }

    #[test]
    fn a_plan_is_taken_from_a_complete_snapshot() {
        let all = vec![snapshot(1, false, true), snapshot(2, false, false), snapshot(3, true, true)];
        let found = newest_planned(all).expect("one is there");
        assert_eq!(found.0, SnapshotId::new(BlobId::from_bytes([1; 32])));
        assert!(newest_planned(vec![snapshot(3, true, true)]).is_none());
    }
}
