//! `compliance`: whether the targets of the plan are met.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Zoned;
use serde_json::json;
use strongroom_ops::compliance::{self, Compliance, Finding, Standing};
use strongroom_ops::plan::Plan;
use strongroom_ops::plan::types::Exception;
use strongroom_ops::plan::values::Name;
use strongroom_ops::run::state::State;

use crate::commands::snapshots::aligned;
use crate::commands::status::Known;
use crate::context::Context;
use crate::evidence::Evidence;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Object, object, visible};
use crate::plan;
use crate::vault::Repositories;

/// What stands below the help.
pub const AFTER_HELP: &str = "\
Each target of each domain is compared with what is in the repositories and their logs: age of the
newest snapshot, measured time of a recovery, copies, sites, consistency, verification, drills, and
how many snapshots there are at least. A target that an [[exception]] allows to be missed is excused
until that expires; then the exception itself is a violation. A snapshot that lacks entries which
could not be read, or says that it was made in the future, counts for none; damage that was found is
excused by nothing.

Exit codes: 0 all targets are met or excused, 4 one is missed or an exception has expired, 5 it cannot
be told of one.

Example:
  strongroom compliance --config /etc/strongroom/strongroom.toml";

/// Judges and tells.
pub fn run(plan: &Plan, context: &Context) -> Outcome {
    plan::refuse_head(plan, context)?;
    plan::warn_of_includes(plan, context);
    let state = plan::state(plan, context)?;
    let repositories = Repositories::new(context, plan, Arc::new(AtomicBool::new(false)));
    let evidence = Evidence::gather(plan.repos.keys(), &repositories, Some(&state))?;
    evidence.warn(context);
    let found = judge(plan, &repositories, &state, &evidence)?;
    repositories.remember_heads();
    if context.output.json() {
        json_lines(&found, context)?;
    } else {
        text(&found, context)?;
    }
    Ok(match (found.count(Standing::Violated), found.count(Standing::Unknown)) {
        (0, 0) => Exit::Ok,
        (0, _) => Exit::Unverified,
        _ => Exit::Damage,
    })
}

/// How the targets stand.
pub fn judge(
    plan: &Plan,
    repositories: &Repositories<'_>,
    state: &State,
    evidence: &Evidence,
) -> Result<Compliance, Failure> {
    let known = Known::of(plan, repositories);
    let attempts =
        state.attempts().map_err(|error| Failure::io("cannot read the record of attempts", &error))?;
    let verifications = state.verifications();
    let verifications =
        verifications.map_err(|error| Failure::io("cannot read how verifications ended", &error))?;
    let all = compliance::Evidence {
        host: &plan::host(plan),
        snapshots: &|name| known.snapshots(name),
        known: &|name: &Name| repositories.known(name).map_err(|error| error.message),
        verifications: &verifications,
        attempts: &attempts,
        drills: &evidence.drills,
        recoveries: &evidence.recoveries,
        unasked: &evidence.unasked(),
        now: &Zoned::now(),
    };
    Ok(compliance::compliance(plan, &all))
}

fn text(found: &Compliance, context: &Context) -> Result<(), Failure> {
    let mut rows = vec![["Domain", "Target", "Standing", "Wanted", "Found"].map(str::to_owned)];
    rows.extend(found.findings.iter().map(|finding| {
        let excuse =
            finding.exception.as_ref().map_or(String::new(), |id| format!(" ({})", visible(id.as_bytes())));
        [
            finding.domain.to_string(),
            finding.control.name().to_owned(),
            format!("{}{excuse}", finding.standing.name()),
            finding.wanted.clone(),
            finding.found.clone(),
        ]
    }));
    for line in aligned(&rows, &[]) {
        context.output.line(line)?;
    }
    for exception in &found.expired {
        let line = format!(
            "exception {} expired on {}: {} of {}, approved by {}",
            exception.id,
            exception.expires,
            exception.control.name(),
            exception.domain,
            exception.approved_by
        );
        context.output.line(visible(line.as_bytes()))?;
    }
    let count = |standing| format!("{} {}", found.count(standing), standing.name());
    let all = [Standing::Met, Standing::Excused, Standing::Unknown, Standing::Violated].map(count);
    context.output.text(all.join(", "));
    Ok(())
}

fn json_lines(found: &Compliance, context: &Context) -> Result<(), Failure> {
    for finding in &found.findings {
        context.output.object(record(finding))?;
    }
    for exception in &found.expired {
        context.output.object(expired(exception))?;
    }
    let count = |standing| found.count(standing);
    context.output.object(object(json!({
        "type": "summary",
        "met": count(Standing::Met),
        "excused": count(Standing::Excused),
        "unknown": count(Standing::Unknown),
        "violated": count(Standing::Violated),
    })))
}

fn record(finding: &Finding) -> Object {
    object(json!({
        "type": "control",
        "domain": finding.domain,
        "control": finding.control.name(),
        "standing": finding.standing.name(),
        "wanted": finding.wanted,
        "found": finding.found,
        "exception": finding.exception,
    }))
}

fn expired(exception: &Exception) -> Object {
    object(json!({
        "type": "exception-expired",
        "id": exception.id,
        "domain": exception.domain,
        "control": exception.control.name(),
        "expires": exception.expires.to_string(),
        "approved_by": exception.approved_by,
        "reason": exception.reason,
    }))
}
