//! What `recover` says: of what it would do, and of what it did.

use serde_json::{Value, json};
use strongroom_ops::plan::Plan;
use strongroom_ops::plan::values::Lapse;
use strongroom_ops::recover::preview::{Measured, Preview, StreamPreview};
use strongroom_ops::recover::{RecoveryOutcome, RecoveryRecord};
use strongroom_ops::status::rough;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{object, visible};
use crate::units;

/// Says what would be done; ends as doing it would begin.
pub fn previews(previews: &[Preview], plan: &Plan, context: &Context) -> Result<Exit, Failure> {
    for (number, preview) in previews.iter().enumerate() {
        match context.output.json() {
            true => context.output.object(object(of_preview(preview)))?,
            false => text(preview, plan, number + 1, context)?,
        }
    }
    let blockers: Vec<_> = previews.iter().flat_map(|preview| &preview.blockers).collect();
    let seconds: Option<f64> =
        previews.iter().map(|preview| preview.measured.as_ref().map(|measured| measured.seconds)).sum();
    if context.output.json() {
        context.output.object(object(json!({
            "type": "summary",
            "domains": previews.len(),
            "blockers": blockers.len(),
            "seconds": seconds,
        })))?;
    }
    match blockers.first() {
        None => Ok(Exit::Ok),
        Some(first) => Err(super::failure(first)),
    }
}

/// How long it takes.
fn measured(measured: Option<&Measured>) -> String {
    let Some(Measured { seconds, drill, began, bytes }) = measured else {
        return "unknown: neither a drill nor a recovery has measured it".into();
    };
    let by = drill.as_ref().map_or("the recovery".into(), |drill| format!("the drill {drill}"));
    format!("{seconds:.1} s in {by} of {}, for {}", began.strftime("%Y-%m-%d"), units::size(*bytes))
}

fn text(preview: &Preview, plan: &Plan, number: usize, context: &Context) -> Result<(), Failure> {
    let line = |text: String| context.output.line(visible(text.as_bytes()));
    let rpo = preview.rpo.map_or(String::new(), |rpo| {
        let past = if preview.age > rpo { ": PAST IT" } else { "" };
        format!(" (RPO {rpo}{past})")
    });
    let url = plan.repos.get(&preview.repository).map_or("", |repo| repo.url.as_str());
    line(format!("{number}. {}", preview.domain))?;
    line(format!("  from       {} ({url})", preview.repository))?;
    line(format!(
        "  snapshot   {} of {}, {} old{rpo}",
        preview.snapshot.short(),
        preview.time,
        rough(preview.age)
    ))?;
    let domain = plan.domain(preview.domain.as_str());
    if domain.is_some_and(|domain| plan.repositories(domain).len() > 1) {
        line("             another id in each other repository: --from NAME takes it from there by latest or before:7d".into())?;
    }
    let rto = preview.rto.map_or(String::new(), |rto| format!("; RTO {rto}"));
    line(format!("  takes      {}{rto}", measured(preview.measured.as_ref())))?;
    for found in &preview.targets {
        let place = match found.target.named == found.target.place {
            true => found.target.place.display().to_string(),
            false => format!("{} ({})", found.target.place.display(), found.target.named.display()),
        };
        match (&found.target.held, found.is_there) {
            (None, false) => {}
            (None, true) => line(format!("  moves away {place}"))?,
            (Some(_), is_there) => line(format!(
                "  {} {place}: {}, {}",
                if is_there { "replaces  " } else { "makes     " },
                units::count(found.held.files, "file"),
                units::size(found.held.bytes)
            ))?,
        }
    }
    for stream in &preview.streams {
        line(of_stream(stream))?;
    }
    if preview.left_out > 0 {
        let becomes =
            if preview.carries { "moved into what is restored" } else { "left in what was there before" };
        line(format!(
            "  excluded   {} that no snapshot has: {becomes}",
            units::count(preview.left_out, "entry")
        ))?;
    }
    for space in &preview.space {
        let (needed, free) = (units::size(space.needed), units::size(space.free));
        line(format!(
            "  space      {needed} beside what is in {}, where {free} are free",
            space.folder.display()
        ))?;
    }
    for fact in &preview.facts {
        let now = match &fact.now {
            Some(Ok(now)) => format!("{now:?}"),
            Some(Err(_)) => "not known".into(),
            None => "not asked".into(),
        };
        let then = fact.then.as_ref().map_or("not known".into(), |then| format!("{then:?}"));
        let is_as_it_was = !fact.has_drifted() && fact.then.is_some() && fact.now.is_some();
        let said =
            if is_as_it_was { format!("{then}, as it was") } else { format!("then {then}, now {now}") };
        line(format!("  fact       {}: {said}", fact.name))?;
    }
    for note in &preview.notes {
        line(format!("  note       {note}"))?;
    }
    for left in &preview.left {
        line(format!("  left to do {left}"))?;
    }
    for blocker in &preview.blockers {
        line(format!("  BLOCKED    {}", blocker.message))?;
    }
    Ok(())
}

fn of_stream(stream: &StreamPreview) -> String {
    let size = units::size(stream.bytes);
    match (&stream.load, &stream.command) {
        (Some(load), Some(command)) => {
            let then = match stream.is_swapped {
                true => format!(", then swapped; what is in use becomes {}", load.old),
                false => String::new(),
            };
            format!("  loads      {} ({size}) as {}: {}{then}", stream.name, load.target, command.quoted())
        }
        _ => format!("  stream     {} ({size}): nothing loads it", stream.name),
    }
}

fn of_preview(preview: &Preview) -> Value {
    let targets = preview.targets.iter().filter(|found| found.target.held.is_some() || found.is_there);
    let targets: Vec<Value> = targets
        .map(|found| {
            json!({
                "path": found.target.named.to_string_lossy(),
                "place": found.target.place.to_string_lossy(),
                "action": match (&found.target.held, found.is_there) {
                    (None, _) => "move-away",
                    (Some(_), true) => "replace",
                    (Some(_), false) => "make",
                },
                "files": found.held.files,
                "bytes": found.held.bytes,
            })
        })
        .collect();
    let streams: Vec<Value> = preview
        .streams
        .iter()
        .map(|stream| {
            json!({
                "stream": stream.name,
                "bytes": stream.bytes,
                "command": stream.command.as_ref().map(|argv| argv.words()),
                "target": stream.load.as_ref().map(|load| &load.target),
                "old": stream.load.as_ref().filter(|_| stream.is_swapped).map(|load| &load.old),
            })
        })
        .collect();
    let facts: Vec<Value> = preview
        .facts
        .iter()
        .map(|fact| {
            json!({
                "fact": fact.name,
                "then": fact.then,
                "now": fact.now.as_ref().and_then(|now| now.as_ref().ok()),
                "drifted": fact.has_drifted(),
                "allowed": fact.is_allowed,
            })
        })
        .collect();
    let spaces = preview.space.iter();
    let spaces: Vec<Value> = spaces
        .map(|space| {
            json!({"folder": space.folder.to_string_lossy(), "needed": space.needed, "free": space.free})
        })
        .collect();
    let blockers = preview.blockers.iter();
    let blockers: Vec<Value> = blockers
        .map(|blocker| json!({"code": super::failure(blocker).code, "message": blocker.message, "hint": blocker.hint}))
        .collect();
    json!({
        "type": "recovery-plan",
        "domain": preview.domain,
        "repository": preview.repository,
        "snapshot_id": preview.snapshot,
        "time": format!("{:.9}", preview.time),
        "age": preview.age.as_secs(),
        "rpo": preview.rpo.map(Lapse::as_secs),
        "rto": preview.rto.map(Lapse::as_secs),
        "measured": preview.measured.as_ref().map(|measured| json!({
            "seconds": measured.seconds,
            "drill": measured.drill,
            "began": format!("{:.9}", measured.began),
            "bytes": measured.bytes,
        })),
        "targets": targets,
        "streams": streams,
        "excluded": {"entries": preview.left_out, "carried": preview.carries},
        "space": spaces,
        "facts": facts,
        "notes": preview.notes,
        "left": preview.left,
        "blockers": blockers,
    })
}

/// Says what became of a domain.
pub fn record(record: &RecoveryRecord, context: &Context) {
    if context.output.json() {
        let steps: Vec<Value> = record
            .steps
            .iter()
            .map(|timed| json!({"step": timed.step.name(), "seconds": timed.seconds}))
            .collect();
        context.output.message(object(json!({
            "type": "recovery",
            "recovery": record.recovery,
            "domain": record.domain,
            "repository": record.repository,
            "snapshot_id": record.snapshot,
            "began": format!("{:.9}", record.began),
            "outcome": record.outcome.name(),
            "message": record.reason,
            "files": record.files,
            "bytes": record.bytes,
            "steps": steps,
            "seconds": record.seconds(),
            "rto": record.rto,
            "left": record.left,
            "kept": record.kept,
            "warnings": record.warnings,
        })));
        return;
    }
    let reason = record.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
    let said = match record.outcome {
        RecoveryOutcome::Recovered => format!(
            "recovered from {} of {}: {}, {}, in {:.1} s",
            record.snapshot.short(),
            record.repository,
            units::count(record.files, "file"),
            units::size(record.bytes),
            record.seconds()
        ),
        RecoveryOutcome::Partial => {
            format!(
                "recovered from {} of {}, but for what is left to do",
                record.snapshot.short(),
                record.repository
            )
        }
        RecoveryOutcome::Failed => format!("FAILED{reason}. What was there before is in its place"),
        RecoveryOutcome::Skipped => format!("not begun{reason}"),
        RecoveryOutcome::Unfinished => format!("UNFINISHED{reason}"),
        RecoveryOutcome::RolledBack => "what was there before is in its place again".into(),
        RecoveryOutcome::Committed => "what was kept is removed".into(),
    };
    let line = visible(format!("{}: {said}", record.domain).as_bytes());
    match record.outcome {
        RecoveryOutcome::Failed | RecoveryOutcome::Skipped | RecoveryOutcome::Unfinished => {
            context.output.alert(&line);
        }
        _ => context.output.text(line),
    }
    for left in &record.left {
        context.output.alert(&format!("left to do: {}: {left}", record.domain));
    }
    for warning in &record.warnings {
        context.output.alert(&format!("warning: {}: {warning}", record.domain));
    }
    for kept in &record.kept {
        context.output.text(visible(format!("  kept: {kept}").as_bytes()));
    }
    if !record.kept.is_empty() {
        let name = &record.domain;
        context.output.text(format!(
            "  `strongroom recover --rollback {name}` puts it back, --commit {name} removes it"
        ));
    }
}
