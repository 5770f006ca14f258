//! What a plan says of a recovery that cannot be done. Backups do not need it: the recovery is refused, and all else of the plan is done.

use crate::drill::mistake::ready_mistake;
use crate::plan::types::{Domain, Stream, StreamRecover};
use crate::recover::OLD;
use crate::recover::preview::Refusal;

/// Something that a domain says of its recovery and that cannot be done.
pub(crate) struct Mistake {
    /// A stable name for programs.
    pub code: &'static str,
    /// Where in the table of the domain, such as `recover.ready`.
    pub key: String,
    /// What it is.
    pub message: String,
    /// What to do about it, if that is not plain.
    pub hint: Option<&'static str>,
}

impl Mistake {
    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        self.hint.unwrap_or("`strongroom config check` shows where")
    }
}

/// All of them, in the order of the plan.
pub(crate) fn mistakes(domain: &Domain) -> Vec<Mistake> {
    let mut found = Vec::new();
    if let Some(recover) = &domain.recover {
        if let Some(wrong) = recover.ready.as_ref().and_then(ready_mistake) {
            let message = format!("the recovery of the domain {} {wrong}", domain.name);
            found.push(Mistake { code: "bad-recover", key: "recover.ready".into(), message, hint: None });
        }
        if let Some(scratch) = recover.scratch.as_ref().filter(|scratch| !scratch.starts_with('/')) {
            let message = format!(
                "the scratch directory for the recovery of the domain {} has the relative path {scratch:?}",
                domain.name
            );
            found.push(Mistake {
                code: "relative-path",
                key: "recover.scratch".into(),
                message,
                hint: Some("write the whole path: a plan has to mean the same wherever it is run"),
            });
        }
    }
    for stream in &domain.stream {
        if let Some(recover) = &stream.recover {
            of_stream(domain, stream, recover, &mut found);
        }
    }
    found
}

/// Refuses to go on with a recovery, or to undo one, by a plan that says something of it that cannot be done.
///
/// # Errors
/// [`Refusal`]: the first thing that is wrong.
pub fn refuse_mistakes(domain: &Domain) -> Result<(), Refusal> {
    let Some(mistake) = mistakes(domain).into_iter().next() else { return Ok(()) };
    let advice = mistake.advice().to_owned();
    Err(Refusal::failed("plan", mistake.message, advice))
}

fn of_stream(domain: &Domain, stream: &Stream, recover: &StreamRecover, found: &mut Vec<Mistake>) {
    let key = format!("stream.{}.recover", stream.name);
    let of = format!("the stream {:?} of the domain {}", stream.name, domain.name);
    let mut add = |key: String, message: String, hint: Option<&'static str>| {
        found.push(Mistake { code: "bad-recover", key, message, hint });
    };
    let together = [recover.swap.is_some(), recover.swapped.is_some(), recover.undo.is_some()];
    if together.contains(&true) && together.contains(&false) {
        let message = format!("the recovery of {of} needs swap, swapped and undo together");
        let hint = "what was swapped has to be put back after a failure, and after a kill it has to be asked what was done";
        add(key.clone(), message, Some(hint));
    }
    let Some(restore) = &stream.restore else {
        add(key, format!("{of} says how it is recovered, and has no command `restore`"), None);
        return;
    };
    if !restore.names("target") {
        let message = format!("`restore` of {of} does not name ${{target}}");
        let hint =
            "what is loaded over the data in use cannot be undone: restore it under the name ${target}";
        add(format!("stream.{}.restore", stream.name), message, Some(hint));
    }
    for (field, argv) in [("swap", &recover.swap), ("undo", &recover.undo)] {
        let Some(argv) = argv else { continue };
        if !argv.names("target") || !argv.names("old") {
            let message = format!("`recover.{field}` of {of} does not name both ${{target}} and ${{old}}");
            add(format!("{key}.{field}"), message, None);
        }
    }
    let target = recover.target.as_ref();
    if let Some(target) = target.filter(|target| target.is_empty() || target.ends_with(OLD)) {
        let message = format!("{of} is restored under the name {target:?}");
        let hint = "give it a name that does not end in _old: what was in use before gets that";
        add(format!("{key}.target"), message, Some(hint));
    } else if let Some(target) = recover.taken_target() {
        let message = format!("{of} is restored under the name {target:?}, which somebody else may have");
        let hint = "put ${id} into it, or say how it is made: `create` has to fail where it is there";
        add(format!("{key}.target"), message, Some(hint));
    }
}
