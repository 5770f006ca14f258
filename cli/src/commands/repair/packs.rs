//! `repair packs`: what damaged packs still give, and what they have lost from elsewhere.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use strongroom::ids::PackId;
use strongroom::repair::{Fate, PacksOptions, PacksReport, Sources, packs};

use crate::context::{self, Context};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::monitor::CliMonitor;
use crate::output::{insert_bytes, object, visible};
use crate::{signals, units};

const AFTER_HELP: &str = "\
Finds packs that are missing, too short or without a readable directory; with --read-data, or for
packs that are named, also those in which bits have flipped. What parity makes good (`parity add`)
is as it was. Of the others, in one commit: their readable
blobs are written to new packs, what they have lost is looked for in packs that the index does not
list, in the log, in --from and in --from-source, and the index goes on without the damaged packs.
Every blob is verified by its id, wherever it is from.

What nobody has is named. It is out of the index by then: the next backup reads files again whose
content is no longer there, unchanged or not. What stays lost is for `repair snapshots`.

Exit codes: 0 nothing that a snapshot needs is lost, 4 something is.

Examples:
  strongroom -r /backup/repo repair packs --read-data --dry-run
  strongroom -r /backup/repo repair packs --from /copy/repo
  strongroom -r /backup/repo repair packs --from-source /home --from-source /etc";

/// Arguments of `repair packs`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Packs to read in whole, by id (64 digits, as `check` names them)
    #[arg(value_name = "ID", value_parser = parse_pack)]
    packs: Vec<PackId>,
    /// Read all packs in whole
    #[arg(long)]
    read_data: bool,
    /// A copy of the repository to take lost packs and blobs from
    #[arg(long, value_name = "REPO")]
    from: Option<OsString>,
    /// The password of that copy, if it is another
    #[arg(long, value_name = "FILE", requires = "from")]
    from_password_file: Option<PathBuf>,
    /// Files or directories that were backed up, to read lost blobs from
    #[arg(long, value_name = "PATH")]
    from_source: Vec<PathBuf>,
    /// Go on although most packs are missing
    #[arg(long)]
    allow_mass: bool,
    /// Look at everything, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

fn parse_pack(text: &str) -> Result<PackId, String> {
    // As in `packs/3f/3f…`, which is how they are named elsewhere.
    let digits = text.rsplit('/').next().unwrap_or(text);
    let wrong = || "the id of a pack has 64 hexadecimal digits".to_owned();
    digits.to_ascii_lowercase().parse().map_err(|_| wrong())
}

/// Repairs packs.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let repository = context.open()?;
    let other = match &args.from {
        Some(location) => {
            let opened = context.open_other(location, args.from_password_file.as_deref());
            Some(opened.map_err(|failure| failure.of_second("--from", location))?)
        }
        None => None,
    };
    let default = PacksOptions::default();
    let options = PacksOptions {
        packs: args.packs.clone(),
        read_data: args.read_data,
        allow_mass: args.allow_mass,
        dry_run: args.dry_run,
        threads: context.threads(default.threads),
        memory: context.memory(default.memory),
        spill: Some(context::temporary_place()),
        ..default
    };
    let sources = Sources { repository: other.as_ref(), paths: args.from_source.clone() };
    let monitor = CliMonitor::new(&context.output, "packs", signals::cancel_flag()?);
    let report = packs::run(&repository, &options, &sources, &monitor);
    let elapsed = monitor.finish();
    let report = report?;
    if context.output.json() {
        json_lines(&report, elapsed, context);
    } else {
        text(&report, elapsed, context)?;
    }
    Ok(if report.is_whole() { Exit::Ok } else { Exit::Damage })
}

fn fate(fate: Fate) -> &'static str {
    match fate {
        Fate::Sound => "sound",
        Fate::Mended => "mended",
        Fate::Copied => "copied",
        Fate::Dropped => "dropped",
    }
}

fn json_lines(report: &PacksReport, elapsed: Duration, context: &Context) {
    for pack in &report.packs {
        context.output.message(object(json!({
            "type": "pack",
            "id": pack.pack,
            "problem": pack.problem,
            "fate": fate(pack.fate),
            "blobs": pack.blobs,
            "blobs_unreadable": pack.unreadable,
        })));
    }
    for blob in &report.lost {
        context.output.message(object(json!({
            "type": "error",
            "code": "blob-lost",
            "message": "a snapshot needs it, and nobody gives it",
            "blob": blob.id,
            "kind": if blob.is_data { "data" } else { "tree" },
        })));
    }
    for hit in report.after.iter().flat_map(|after| &after.hit_files) {
        let mut line = object(json!({
            "type": "error",
            "code": "file-hit",
            "message": "cannot be restored in whole",
            "snapshot_id": hit.snapshot,
        }));
        insert_bytes(&mut line, "path", &hit.path);
        context.output.message(line);
    }
    let healed = &report.healed;
    context.output.message(object(json!({
        "type": "summary",
        "dry_run": report.dry_run,
        "packs_damaged": report.damaged(),
        "packs_mended": report.packs.iter().filter(|pack| pack.fate == Fate::Mended).count(),
        "packs_copied": report.packs.iter().filter(|pack| pack.fate == Fate::Copied).count(),
        "packs_dropped": report.packs.iter().filter(|pack| pack.fate == Fate::Dropped).count(),
        "blobs_salvaged": report.salvaged,
        "blobs_healed": healed.blobs(),
        "blobs_from_unlisted_packs": healed.from_unlisted_packs,
        "blobs_from_log": healed.from_log,
        "blobs_from_repository": healed.from_repository,
        "blobs_from_source": healed.from_paths,
        "blobs_lost": report.lost_count,
        "bytes_written": report.bytes_written,
        "num_errors": report.after.as_ref().map(|after| after.findings.iter().filter(|finding| finding.is_damage).count()),
        "total_duration": elapsed.as_secs_f64(),
    })));
}

fn text(report: &PacksReport, elapsed: Duration, context: &Context) -> Result<(), Failure> {
    let out = &context.output;
    let would = if report.dry_run { "would be " } else { "" };
    for pack in &report.packs {
        let id = pack.pack;
        out.line(match pack.fate {
            Fate::Sound => format!("sound: pack {id}"),
            Fate::Mended => {
                format!("{would}mended by its parity: pack {id}: {}", visible(pack.problem.as_bytes()))
            }
            Fate::Copied => format!("{would}copied: pack {id}: {}", pack.problem),
            Fate::Dropped => format!(
                "damaged: pack {id}: {}; {} of {} cannot be read",
                visible(pack.problem.as_bytes()),
                pack.unreadable,
                units::count(pack.blobs, "blob")
            ),
        })?;
    }
    for hit in report.after.iter().flat_map(|after| &after.hit_files) {
        let mut line = format!("hit: {} ", hit.snapshot.short()).into_bytes();
        line.extend(out.name(&hit.path));
        out.line(line)?;
    }
    if report.damaged() == 0 {
        out.text("No pack is damaged");
    }
    if report.salvaged > 0 {
        out.text(format!(
            "Salvaged: {} of damaged packs {would}written anew",
            units::count(report.salvaged, "blob")
        ));
    }
    let healed = &report.healed;
    for (count, from) in [
        (healed.from_unlisted_packs, "packs that the index does not list"),
        (healed.from_log, "the log"),
        (healed.from_repository, "the other repository"),
        (healed.from_paths, "files that were backed up"),
    ] {
        if count > 0 {
            out.text(format!("Healed:   {} {would}taken from {from}", units::count(count, "blob")));
        }
    }
    out.text(format!("Written:  {} in {}", units::size(report.bytes_written), units::clock(elapsed)));
    if report.lost_count > 0 {
        out.line(format!("Lost:     {} that snapshots need", units::count(report.lost_count, "blob")))?;
        out.text(
            "Next:     give a copy of the repository (--from) or of the files (--from-source); \
             `strongroom backup --force` stores again what is still there; then `strongroom repair snapshots`",
        );
    } else if report.is_whole() {
        out.text(format!(
            "Nothing that a snapshot needs {}lost",
            if report.dry_run { "would be " } else { "is " }
        ));
    } else if let Some(after) = &report.after {
        for finding in after.findings.iter().filter(|finding| finding.is_damage) {
            out.line(format!("damage: {}: {}", finding.object, visible(finding.message.as_bytes())))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_are_named_as_check_names_them() {
        let digits = "3f".repeat(32);
        let id: PackId = digits.parse().expect("an id");
        for text in [digits.clone(), digits.to_uppercase(), format!("packs/3f/{digits}")] {
            assert_eq!(parse_pack(&text), Ok(id), "{text}");
        }
        for bad in ["", "3f", "packs/3f/", &"3g".repeat(32)] {
            assert!(parse_pack(bad).is_err(), "{bad}");
        }
    }
}
