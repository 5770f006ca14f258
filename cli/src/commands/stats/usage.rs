//! `stats --by` and `stats --free`: who takes the space, and what to forget for more of it.

use std::ffi::OsString;

use serde_json::{Value, json};
use strongroom::browse;
use strongroom::budget;
use strongroom::repo::Repository;
use strongroom::usage::{self, Proposal, SnapshotUsage, UsageError};

use crate::commands::ls::{normal, split_snapshot};
use crate::commands::snapshots::aligned;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::monitor::CliMonitor;
use crate::output::{Object, insert_bytes, object, visible};
use crate::{records, signals, units};

/// Runs a count with a progress bar.
fn counted<T>(
    context: &Context,
    count: impl FnOnce(usize, &CliMonitor) -> Result<T, UsageError>,
) -> Result<T, Failure> {
    let monitor = CliMonitor::new(&context.output, "blobs", signals::cancel_flag()?);
    let threads = context.threads(std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let result = count(budget::followers(threads, context.memory(budget::USUAL)), &monitor);
    monitor.finish();
    Ok(result?)
}

fn snapshot_record(usage: &SnapshotUsage) -> Object {
    let mut line = object(json!({"type": "usage"}));
    let record = records::snapshot(&usage.id, &usage.snapshot);
    let told = ["id", "short_id", "time", "hostname", "paths", "paths_exact", "tags"];
    line.extend(record.into_iter().filter(|(name, _)| told.contains(&name.as_str())));
    line.extend(object(json!({
        "held": usage.is_held,
        "unique_size": usage.usage.unique,
        "last_size": usage.usage.last,
    })));
    line
}

fn summary(by: &str, count: usize) -> Object {
    object(json!({"type": "summary", "by": by, "count": count}))
}

/// Each snapshot with what it takes alone, and what it and all older ones take together.
pub fn by_snapshot(repository: &Repository, context: &Context) -> Outcome {
    let usages = counted(context, |threads, monitor| usage::of_snapshots(repository, threads, monitor))?;
    if context.output.json() {
        for usage in &usages {
            context.output.object(snapshot_record(usage))?;
        }
        context.output.object(summary("snapshot", usages.len()))?;
        return Ok(Exit::Ok);
    }
    let mut rows = vec![["ID", "Time", "Host", "Alone", "With all older", "Paths"].map(str::to_owned)];
    let mut together = 0;
    for usage in &usages {
        let with_older = if usage.is_held {
            "held".to_owned()
        } else {
            together += usage.usage.last;
            units::size(together)
        };
        rows.push([
            usage.id.short(),
            units::local_time(usage.snapshot.time),
            visible(usage.snapshot.hostname.as_bytes()),
            units::size(usage.usage.unique),
            with_older,
            shown_paths(usage),
        ]);
    }
    aligned(&rows, &[3, 4]).into_iter().try_for_each(|line| context.output.line(line))?;
    Ok(Exit::Ok)
}

fn shown_paths(usage: &SnapshotUsage) -> String {
    let paths: Vec<_> = usage.snapshot.paths.iter().map(|path| visible(path)).collect();
    paths.join(", ")
}

/// Each host with what its snapshots take alone.
pub fn by_host(repository: &Repository, context: &Context) -> Outcome {
    let usages = counted(context, |threads, monitor| usage::of_hosts(repository, threads, monitor))?;
    if context.output.json() {
        for (host, snapshots, usage) in &usages {
            context.output.object(object(json!({
                "type": "usage",
                "hostname": host,
                "snapshots_count": snapshots,
                "unique_size": usage.unique,
            })))?;
        }
        context.output.object(summary("host", usages.len()))?;
        return Ok(Exit::Ok);
    }
    let mut rows = vec![["Host", "Snapshots", "Alone"].map(str::to_owned)];
    for (host, snapshots, usage) in &usages {
        rows.push([visible(host.as_bytes()), snapshots.to_string(), units::size(usage.unique)]);
    }
    aligned(&rows, &[1, 2]).into_iter().try_for_each(|line| context.output.line(line))?;
    Ok(Exit::Ok)
}

/// The directories of a snapshot with what each takes of it alone, the largest first.
pub fn by_path(repository: &Repository, snapshot: &[OsString], depth: u32, context: &Context) -> Outcome {
    let latest = OsString::from("latest");
    let argument = match snapshot {
        [] => &latest,
        [one] => one,
        _ => return Err(Failure::usage("usage", "--by path looks into one snapshot")),
    };
    let (name, path) = split_snapshot(argument)?;
    let (id, snapshot) = repository.find_snapshot(&name)?;
    let prefix = normal(&path);
    let tree = browse::find(repository.reader(), &snapshot.tree, &path)?.tree().ok_or_else(|| {
        Failure::new("no-directory", format!("{} is no directory in snapshot {}", visible(&path), id.short()))
    })?;
    let mut usages = counted(context, |threads, monitor| {
        usage::of_paths(repository, tree, &prefix, depth, threads, monitor)
    })?;
    usages.sort_by(|a, b| b.usage.unique.cmp(&a.usage.unique).then_with(|| a.path.cmp(&b.path)));
    if context.output.json() {
        for usage in &usages {
            let mut line = object(json!({"type": "usage"}));
            insert_bytes(&mut line, "path", &usage.path);
            line.extend(object(json!({
                "files_in_it_only": usage.is_rest,
                "unique_size": usage.usage.unique,
            })));
            context.output.object(line)?;
        }
        let mut line = summary("path", usages.len());
        line.insert("snapshot_id".into(), Value::from(id.to_string()));
        context.output.object(line)?;
        return Ok(Exit::Ok);
    }
    let mut rows = vec![["Alone", "Path"].map(str::to_owned)];
    for usage in &usages {
        let rest = if usage.is_rest { " (files in it)" } else { "" };
        let path = if usage.path.is_empty() { "/".to_owned() } else { visible(&usage.path) };
        rows.push([units::size(usage.usage.unique), format!("{path}{rest}")]);
    }
    aligned(&rows, &[0]).into_iter().try_for_each(|line| context.output.line(line))?;
    Ok(Exit::Ok)
}

/// The oldest snapshots that together give back what is wanted, of those that `forget` takes.
pub fn free(repository: &Repository, wanted: u64, context: &Context) -> Outcome {
    let Proposal { snapshots, freed, is_mass } =
        counted(context, |threads, monitor| usage::to_free(repository, wanted, threads, monitor))?;
    let enough = freed >= wanted;
    if context.output.json() {
        for usage in &snapshots {
            context.output.object(snapshot_record(usage))?;
        }
        context.output.object(object(json!({
            "type": "summary",
            "wanted_size": wanted,
            "freed_size": freed,
            "is_enough": enough,
            "needs_allow_mass": is_mass,
            "snapshots": snapshots.iter().map(|usage| usage.id.to_string()).collect::<Vec<_>>(),
        })))?;
        return Ok(Exit::Ok);
    }
    if !enough {
        context.output.line(format!(
            "Without all snapshots that can go, about {} would be free: less than {}",
            units::size(freed),
            units::size(wanted)
        ))?;
        context.output.note(
            "the last complete one of each host and its paths stays, and those held. What is forgotten already is not among it: `strongroom prune --dry-run` \
             tells how much that is",
        );
        return Ok(Exit::Ok);
    }
    for usage in &snapshots {
        let time = units::local_time(usage.snapshot.time);
        context.output.line(format!("{}  {time}  {}", usage.id.short(), shown_paths(usage)))?;
    }
    let oldest = if snapshots.len() == 1 { "this, the oldest one" } else { "these, the oldest ones" };
    context.output.text(format!("Without {oldest} that can go, about {} would be free", units::size(freed)));
    let mass = if is_mass { " --allow-mass" } else { "" };
    context.output.note(&format!(
        "`strongroom forget{mass} ID…` does it, and then `strongroom prune`: after its grace period, or at once with --grace 0s"
    ));
    Ok(Exit::Ok)
}
