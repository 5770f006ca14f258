//! What a drill says that cannot be done. Nothing else needs it: the drill is refused, and all else of the plan is done.

use crate::drill::expect;
use crate::plan::types::{Drill, DrillStep, Ready};
use crate::plan::values::Lapse;

/// Something that a drill says and that cannot be done.
pub(crate) struct Mistake {
    /// A stable name for programs.
    pub code: &'static str,
    /// Where in the table of the drill, such as `step.1.expect`.
    pub key: String,
    /// Which part of the drill it is, such as `step 1`; none where it is the drill as a whole.
    pub part: Option<String>,
    /// What is wrong with it, to go on with a sentence about it.
    pub wrong: String,
}

/// All of them, in the order of the plan.
pub(crate) fn mistakes(drill: &Drill) -> Vec<Mistake> {
    let mut found = Vec::new();
    if drill.domains.is_empty() {
        let wrong = "restores nothing".to_owned();
        found.push(Mistake { code: "empty-drill", key: "domains".into(), part: None, wrong });
    }
    if let Some(path) = drill.scratch.as_ref().filter(|path| !path.starts_with('/')) {
        let wrong = format!("has the relative path {path:?} for its scratch directory: write the whole path");
        found.push(Mistake { code: "relative-path", key: "scratch".into(), part: None, wrong });
    }
    let choice = drill.snapshot.as_deref().unwrap_or("latest");
    let is_before = choice.strip_prefix("before:").is_some_and(|lapse| lapse.parse::<Lapse>().is_ok());
    if !matches!(choice, "latest" | "random") && !is_before {
        let wrong = format!(
            "chooses the snapshot {choice:?}, which is no choice of one: it is latest, random or before:7d"
        );
        found.push(Mistake { code: "bad-choice", key: "snapshot".into(), part: None, wrong });
    }
    for (number, step) in drill.step.iter().enumerate() {
        let (key, part) = (format!("step.{}", number + 1), format!("step {}", number + 1));
        let mut add = |key: String, wrong| {
            found.push(Mistake { code: "bad-step", key, part: Some(part.clone()), wrong });
        };
        if let Some(wrong) = step_mistake(step) {
            add(key.clone(), wrong.to_owned());
        }
        if let Some(wrong) = step.expect.as_deref().and_then(expect::mistake) {
            add(format!("{key}.expect"), wrong);
        }
        if let Some(domain) = step.restore.as_ref().filter(|domain| !drill.domains.contains(domain)) {
            add(format!("{key}.restore"), format!("restores {domain}, which is not among its domains"));
        }
    }
    found
}

fn step_mistake(step: &DrillStep) -> Option<&'static str> {
    let kinds = [step.prepare.is_some(), step.restore.is_some(), step.run.is_some(), step.start.is_some()];
    match kinds.iter().filter(|kind| **kind).count() {
        1 => {}
        _ => return Some("needs one of prepare, restore, run and start"),
    }
    if step.target.is_some() && step.restore.is_none() {
        return Some("has a target, and restores nothing");
    }
    if step.expect.is_some() && step.run.is_none() {
        return Some("expects an output, and runs nothing");
    }
    if let Some(wrong) = step.ready.as_ref().and_then(ready_mistake) {
        return Some(wrong);
    }
    (step.ready.is_some() != step.start.is_some()).then_some("needs `start` and `ready` together")
}

/// What is wrong with how it is asked whether something is ready, as a verb and its object.
pub(crate) fn ready_mistake(ready: &Ready) -> Option<&'static str> {
    if ready.http.is_some() == ready.command.is_some() {
        return Some("needs one of `http` and `command` in `ready`");
    }
    let is_wrong = ready.http.as_ref().is_some_and(|url| !url.starts_with("http://"));
    is_wrong.then_some("has an address in `ready` that does not begin with http://")
}
