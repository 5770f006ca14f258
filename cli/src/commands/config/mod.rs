//! `config`: the plan, looked through, shown, described and recovered.

mod recover;

use std::path::Path;

use serde_json::json;
use strongroom_ops::plan::effective::{Entry, Origin, effective};
use strongroom_ops::plan::{self, Finding, Host, Severity, lint};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{object, visible};
use crate::plan::{PlanArgs, host, is_program};
use crate::units::count;

/// Arguments of `config`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  strongroom config check --config /etc/strongroom/strongroom.toml")]
pub struct Args {
    /// What to do with the plan.
    #[command(subcommand)]
    verb: Verb,
}

/// What to do with the plan.
#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Look the plan through: what cannot be, and where it misses its own targets
    Check(CheckArgs),
    /// Show what the plan says, with the place of each value
    Show(ShowArgs),
    /// Write the JSON Schema of a plan's file, for editors
    #[command(after_help = "Example:\n  strongroom config schema > strongroom-plan.schema.json")]
    Schema,
    /// Get a plan back from a snapshot that was made by it
    Recover(recover::Args),
}

#[derive(Debug, clap::Args)]
#[command(after_help = CHECK_HELP)]
struct CheckArgs {
    #[command(flatten)]
    plan: PlanArgs,
}

const CHECK_HELP: &str = "\
Exit codes: 0 nothing to object to (there may be warnings), 2 the plan cannot be run as it is, 4 it
can be run, but misses a target that it sets itself: an RPO that its schedule cannot meet, fewer
copies or sites than wanted, no drill where there has to be one, an exception that has expired.

Example:
  strongroom config check --config /etc/strongroom/strongroom.toml";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  strongroom config show --effective --config /etc/strongroom/strongroom.toml | grep orders-db"
)]
struct ShowArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// Show also what domains have from their class, and what holds by default
    #[arg(long)]
    effective: bool,
}

/// Does it.
pub fn run(args: &Args, context: &Context) -> Outcome {
    match &args.verb {
        Verb::Check(args) => check(args, context),
        Verb::Show(args) => show(args, context),
        Verb::Schema => {
            let schema = plan::schema();
            let text =
                serde_json::to_string_pretty(&schema).map_err(|error| Failure::new("internal", error))?;
            context.output.line(text)?;
            Ok(Exit::Ok)
        }
        Verb::Recover(args) => recover::run(args, context),
    }
}

fn check(args: &CheckArgs, context: &Context) -> Outcome {
    let plan = args.plan.load()?;
    let today = jiff::Zoned::now().date();
    // What cannot be looked at may be there.
    let has_path = |path: &Path| !matches!(path.try_exists(), Ok(false));
    let findings = lint(&plan, today, &Host { has_program: &is_program, has_path: &has_path });
    report(&findings, context)?;
    let number = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, violations, warnings) =
        (number(Severity::Error), number(Severity::Violation), number(Severity::Warning));
    if context.output.json() {
        context.output.object(object(json!({
            "type": "summary",
            "num_errors": errors,
            "num_violations": violations,
            "num_warnings": warnings,
            "domains": plan.domains.len(),
            "files": plan.sources.len(),
        })))?;
    } else {
        context.output.text(format!(
            "{} in {}: {}, {}, {}",
            count(plan.domains.len(), "domain"),
            count(plan.sources.len(), "file"),
            count(errors, "error"),
            count(violations, "violation"),
            count(warnings, "warning")
        ));
    }
    Ok(match (errors, violations) {
        (0, 0) => Exit::Ok,
        (0, _) => Exit::Damage,
        _ => Exit::Usage,
    })
}

/// Writes what was found: as results, since that is what was asked for.
fn report(findings: &[Finding], context: &Context) -> Result<(), Failure> {
    for finding in findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Violation => "violation",
            Severity::Warning => "warning",
        };
        if context.output.json() {
            context.output.object(object(json!({
                "type": "finding",
                "severity": severity,
                "code": finding.code,
                "message": finding.message,
                "hint": finding.hint,
                "file": finding.place.as_ref().map(|place| place.file.to_string_lossy()),
                "line": finding.place.as_ref().map(|place| place.line),
            })))?;
            continue;
        }
        let place = finding.place.as_ref().map_or(String::new(), |place| format!("{place}: "));
        context.output.line(visible(format!("{place}{severity}: {}", finding.message).as_bytes()))?;
        if let Some(hint) = &finding.hint {
            context.output.line(visible(format!("  hint: {hint}").as_bytes()))?;
        }
    }
    Ok(())
}

fn show(args: &ShowArgs, context: &Context) -> Outcome {
    let plan = args.plan.load()?;
    for entry in effective(&plan, &host(&plan)) {
        if !args.effective && !matches!(entry.origin, Origin::Given(_)) {
            continue;
        }
        if context.output.json() {
            context.output.object(record(&entry))?;
        } else {
            let line = format!("{} = {}  # {}", entry.key, entry.value, entry.origin);
            context.output.line(visible(line.as_bytes()))?;
        }
    }
    Ok(Exit::Ok)
}

fn record(entry: &Entry) -> crate::output::Object {
    let (kind, class, place) = match &entry.origin {
        Origin::Given(place) => ("given", None, Some(place)),
        Origin::Class(name, place) => ("class", Some(name), Some(place)),
        Origin::Default => ("default", None, None),
    };
    object(json!({
        "type": "value",
        "key": entry.key,
        "value": entry.value,
        "origin": kind,
        "class": class,
        "file": place.map(|place| place.file.to_string_lossy()),
        "line": place.map(|place| place.line),
    }))
}
