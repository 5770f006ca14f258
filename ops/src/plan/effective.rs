//! Every value that is in force, with where it comes from: a file, a class, or a default.

use std::collections::BTreeMap;
use std::fmt;

use crate::drill::choose::repository;
use crate::drill::steps::READY;
use crate::plan::load::{Place, Plan};
use crate::plan::types::{Domain, Drill};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It stands in a file.
    Given(Place),
    /// It stands in the class of the domain.
    Class(String, Place),
    /// It stands nowhere.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(place) => place.fmt(f),
            Self::Class(name, place) => write!(f, "class {name}, {place}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key, from the plan's first level on: `domain.orders-db.schedule`.
    pub key: String,
    /// The value as TOML.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Time that a hook may take.
pub const HOOK_TIMEOUT: &str = "10m";
/// Time that a command may take which makes or removes a file system snapshot.
pub const SNAPSHOT_TIMEOUT: &str = "2m";
/// Time that a command of a recovery may take.
pub const RECOVER_TIMEOUT: &str = "10m";
/// Time that the command of a stream may take.
pub const STREAM_TIMEOUT: &str = "6h";
/// Time that a command of a drill may take.
pub const STEP_TIMEOUT: &str = "6h";
/// Time that a command may take which removes what a drill has left.
pub const CLEANUP_TIMEOUT: &str = "10m";
/// Time that an application may run which a drill has started.
pub const SERVICE_TIMEOUT: &str = "24h";

const DEFAULT_OBJECTIVES: [(&str, &str); 6] = [
    ("anomaly_guard", "true"),
    ("rpo_grace", "\"0s\""),
    ("copies", "1"),
    ("sites", "1"),
    ("on_change", "\"warn\""),
    ("min_consistency", "\"fuzzy\""),
];

/// All values in force, by key. `host` is the system's own name.
pub fn effective(plan: &Plan, host: &str) -> Vec<Entry> {
    let given = plan.places.iter().filter(|(_, place)| !place.value.is_empty());
    let mut entries: BTreeMap<String, (String, Origin)> = given
        .map(|(key, place)| (key.clone(), (place.value.clone(), Origin::Given(place.clone()))))
        .collect();
    let mut found = vec![("host_id".to_owned(), text(host))];
    for domain in &plan.domains {
        inherit(plan, domain, &mut entries);
        found.extend(defaults(plan, domain));
    }
    found.extend(plan.drills.iter().flat_map(|drill| of_drill(plan, drill)));
    for (key, value) in found {
        entries.entry(key).or_insert((value, Origin::Default));
    }
    entries.into_iter().map(|(key, (value, origin))| Entry { key, value, origin }).collect()
}

/// Targets that a domain has from its class: each one whole, never a part of it.
fn inherit(plan: &Plan, domain: &Domain, entries: &mut BTreeMap<String, (String, Origin)>) {
    let Some(class) = &domain.class else { return };
    let (from, own) = (format!("class.{class}."), format!("domain.{}.objectives.", domain.name));
    for (key, place) in plan.places.range(from.clone()..).take_while(|(key, _)| key.starts_with(&from)) {
        let rest = &key[from.len()..];
        let target = rest.split('.').next().unwrap_or(rest);
        if !place.value.is_empty() && !plan.places.contains_key(&format!("{own}{target}")) {
            let origin = Origin::Class(class.to_string(), place.clone());
            entries.insert(format!("{own}{rest}"), (place.value.clone(), origin));
        }
    }
}

fn text(value: &str) -> String {
    format!("{value:?}")
}

fn ready(key: &str) -> (String, String) {
    (format!("{key}.ready.timeout"), text(&format!("{}s", READY.as_secs())))
}

/// What holds for a drill where the plan does not say.
fn of_drill(plan: &Plan, drill: &Drill) -> Vec<(String, String)> {
    let name = format!("drill.{}", drill.name);
    let mut found = vec![
        (format!("{name}.snapshot"), text("latest")),
        (format!("{name}.scratch"), text("scratch in the state directory")),
    ];
    let from = repository(plan, drill, None, &[]).ok();
    found.extend(from.map(|from| (format!("{name}.from"), text(from.as_str()))));
    let waiting = drill.step.iter().enumerate().filter(|(_, step)| step.ready.is_some());
    found.extend(waiting.map(|(number, _)| ready(&format!("{name}.step.{}", number + 1))));
    // What a step restores has the limits of its streams.
    let limited = drill.step.iter().enumerate().filter(|(_, step)| step.restore.is_none());
    found.extend(limited.map(|(number, step)| {
        let limit = if step.start.is_some() { SERVICE_TIMEOUT } else { STEP_TIMEOUT };
        (format!("{name}.step.{}.timeout", number + 1), text(limit))
    }));
    found
}

fn defaults(plan: &Plan, domain: &Domain) -> Vec<(String, String)> {
    let name = format!("domain.{}", domain.name);
    let mut found: Vec<_> = DEFAULT_OBJECTIVES
        .iter()
        .map(|(key, value)| (format!("{name}.objectives.{key}"), (*value).to_owned()))
        .collect();
    let all: Vec<_> = plan.repos.keys().map(|repo| text(repo.as_str())).collect();
    found.push((format!("{name}.to"), format!("[{}]", all.join(", "))));
    let consistency = format!("{:?}", domain.consistency()).to_lowercase();
    found.push((format!("{name}.consistency"), text(&consistency)));
    found.push((format!("{name}.one_file_system"), "false".into()));
    let timeouts = domain.stream.iter().map(|stream| format!("stream.{}", stream.name));
    found.extend(timeouts.map(|stream| (format!("{name}.{stream}.timeout"), text(STREAM_TIMEOUT))));
    let restored = domain.stream.iter().filter(|stream| stream.restore.is_some());
    found.extend(restored.map(|stream| {
        (format!("{name}.stream.{}.restore_timeout", stream.name), text("none; 6h in a drill"))
    }));
    if domain.hooks.is_some() {
        found.push((format!("{name}.hooks.timeout"), text(HOOK_TIMEOUT)));
    }
    if let Some(recover) = &domain.recover {
        found.extend(recover.ready.is_some().then(|| ready(&format!("{name}.recover"))));
        found.push((format!("{name}.recover.scratch"), text("the state directory")));
        found.push((format!("{name}.recover.timeout"), text(RECOVER_TIMEOUT)));
        found.push((format!("{name}.recover.excluded"), text("carry")));
    }
    if domain.snapshot.is_some() {
        found.push((format!("{name}.snapshot.timeout"), text(SNAPSHOT_TIMEOUT)));
        found.push((format!("{name}.snapshot.root"), text("/")));
    }
    found
}
