//! `report`: how everything stands, as a page for people who do not use a terminal.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Zoned;
use serde_json::json;
use strongroom::browse;
use strongroom::format::config::Config;
use strongroom::format::tree::NodeKind;
use strongroom::log::read_all;
use strongroom_ops::compliance::Standing;
use strongroom_ops::metrics;
use strongroom_ops::plan::Plan;
use strongroom_ops::plan::values::Name;
use strongroom_ops::report::{LogVerdict, Report, Unstable, history, render};
use strongroom_ops::status::newest;

use crate::commands::{compliance, status};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::object;
use crate::plan::{self, PlanArgs};
use crate::vault::Repositories;

const AFTER_HELP: &str = "\
One file without a script, which loads nothing: how the targets stand, the newest snapshots, the
last six weeks day by day, growth, verification, drills with the time that each phase took, files
that changed while they were read, exceptions, the logs, and the last runs on this host.

Exit codes: 0 it was written, whatever it says; `strongroom compliance` judges.

Example:
  strongroom report --html /var/www/backup.html --config /etc/strongroom/strongroom.toml";

/// Files that changed and are named, at most.
const UNSTABLE_MAX: usize = 200;

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    plan: PlanArgs,
    /// The file to write; it takes the place of an earlier one in one go
    #[arg(long, value_name = "FILE")]
    html: PathBuf,
}

/// Writes the report.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let plan = plan::runnable(&args.plan)?;
    plan::refuse_head(&plan, context)?;
    let state = plan::state(&plan, context)?;
    let repositories = Repositories::new(context, &plan, Arc::new(AtomicBool::new(false)));
    let now = Zoned::now();
    let host = plan::host(&plan);
    let overview = status::judge(&plan, &repositories, &state)?;
    overview.evidence.warn(context);
    let compliance = compliance::judge(&plan, &repositories, &state, &overview.evidence)?;
    let known = status::Known::of(&plan, &repositories);
    let facts = |name: &Name| known.snapshots(name);
    let attempts =
        state.attempts().map_err(|error| Failure::io("cannot read the record of attempts", &error))?;
    let (unstable, more_unstable) = unstable(&plan, &host, &known, &repositories);
    let logs: Vec<_> = plan
        .repos
        .keys()
        .map(|repo| LogVerdict { repo: repo.clone(), verdict: log_verdict(repo, &repositories) })
        .collect();
    repositories.remember_heads();
    let page = render(&Report {
        plan: &plan,
        host: &host,
        now: &now,
        domains: &overview.domains,
        repositories: &overview.repositories,
        compliance: &compliance,
        calendars: &history::calendars(&plan, &host, &facts, &attempts, &now),
        growth: &history::growth(&plan, &host, &facts),
        unstable: &unstable,
        more_unstable,
        logs: &logs,
        attempts: &attempts,
        drills: &overview.evidence.drills,
    });
    write(&args.html, &page)?;
    if context.output.json() {
        context.output.object(object(json!({
            "type": "summary",
            "path": args.html.to_string_lossy(),
            "bytes": page.len(),
            "health": overview.worst().name(),
            "violated": compliance.count(Standing::Violated),
        })))?;
    } else {
        context.output.text(args.html.display().to_string());
    }
    Ok(Exit::Ok)
}

fn write(path: &Path, page: &str) -> Result<(), Failure> {
    metrics::write(path, page).map_err(|error| {
        Failure::io(format_args!("cannot write {}", path.display()), &error)
            .hint("the folder has to be there; name another file with --html")
    })
}

/// Whether the log can be read from its first entry to its last, and how many entries it has.
fn log_verdict(repo: &Name, repositories: &Repositories<'_>) -> Result<(u64, u64), String> {
    let repository = repositories.open(repo).map_err(|error| error.message)?;
    let (mut entries, mut voids) = (0, 0);
    let config = Config::hash(repository.config_bytes());
    let read = read_all(&**repository.backend(), repository.keys(), &repository.id(), config, &mut |entry| {
        match entry {
            Ok(_) => entries += 1,
            Err(_) => voids += 1,
        }
    });
    read.map(|_| (entries, voids)).map_err(|error| error.to_string())
}

/// Files of the newest snapshots that changed while they were read.
fn unstable(
    plan: &Plan,
    host: &str,
    known: &status::Known,
    repositories: &Repositories<'_>,
) -> (Vec<Unstable>, bool) {
    let (mut found, mut more) = (Vec::new(), false);
    for domain in &plan.domains {
        for repo in plan.repositories(domain) {
            let Ok(snapshots) = known.snapshots(repo) else { continue };
            let Some((_, snapshot)) = newest(snapshots, host, &domain.name) else { continue };
            let Some(repository) = repositories.open(repo).ok().filter(|_| snapshot.summary.unstable > 0)
            else {
                continue;
            };
            let listed = browse::list(repository.reader(), &snapshot.tree, b"", true, &mut |path, node| {
                if !matches!(&node.kind, NodeKind::File(content) if content.unstable) {
                    return ControlFlow::Continue(());
                }
                if found.len() == UNSTABLE_MAX {
                    more = true;
                    return ControlFlow::Break(());
                }
                found.push(Unstable { domain: domain.name.clone(), repo: repo.clone(), path: path.to_vec() });
                ControlFlow::Continue(())
            });
            // A tree that cannot be read may have some.
            more |= listed.is_err();
        }
    }
    (found, more)
}
