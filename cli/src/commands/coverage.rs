//! `coverage`: what lies where data may lie, and which domain has it.

use std::os::unix::ffi::OsStrExt;

use serde_json::json;
use strongroom_ops::coverage::{Cover, Coverage, Database, Item, Own, coverage};
use strongroom_ops::plan::Plan;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{insert_bytes, object, visible};
use crate::units;

/// What stands below the help.
pub const AFTER_HELP: &str = "\
Looks through the directories in [inventory] of the plan; one that is a link stands for what it
leads to. What is alike is told as one. Databases are recognised by their files: one that is copied
as files while it is in use may come back as a mixture. Repositories of the plan are left out, and
so are this host's state and what drills and recoveries work with, unless a domain has it. The
directories of a server that a stream dumps are covered where the stream names them in `data`; what
need not be protected is named in `ignore` of [inventory], with a reason.

Exit codes: 0 everything is covered or left out, 4 something is not, or a live database
is copied as files.

Example:
  strongroom coverage --config /etc/strongroom/strongroom.toml";

/// Looks and tells.
pub fn run(plan: &Plan, context: &Context) -> Outcome {
    if plan.inventory.as_ref().is_none_or(|inventory| inventory.roots.is_empty()) {
        return Err(Failure::usage("no-inventory", "the plan does not say where data may lie")
            .hint("add a table [inventory] with roots, such as roots = [\"/srv\", \"/var/lib\"]"));
    }
    let found = coverage(plan, &context.state_folders())?;
    if context.output.json() {
        json_lines(&found, context)?;
    } else {
        for item in &found.items {
            context.output.line(line(item))?;
        }
        for database in &found.databases {
            context.output.line(database_line(database))?;
        }
    }
    Ok(if found.is_complete() { Exit::Ok } else { Exit::Damage })
}

fn words(cover: &Cover) -> (&'static str, Option<&str>) {
    match cover {
        Cover::Protected(name) => ("protected", Some(name.as_str())),
        Cover::Excluded(name) => ("excluded", Some(name.as_str())),
        Cover::Own(own) => ("excluded", Some(own.reason())),
        Cover::Ignored(reason) => ("ignored", Some(reason)),
        Cover::Unprotected => ("UNPROTECTED", None),
        Cover::Unreadable(reason) => ("UNREADABLE", Some(reason)),
    }
}

fn line(item: &Item) -> String {
    let (word, more) = words(&item.cover);
    let name = match &item.cover {
        Cover::Own(Own::Repository(name)) => format!(": {name}"),
        _ => String::new(),
    };
    let more = more.map_or(String::new(), |more| format!(" ({more}{name})"));
    let path = visible(item.path.as_os_str().as_bytes());
    let (files, bytes) = (units::count(item.files, "file"), units::size(item.bytes));
    format!("{word:<11}  {path}: {files}, {bytes}{more}")
}

fn database_line(database: &Database) -> String {
    let path = visible(database.path.as_os_str().as_bytes());
    match (&database.copied_by, database.is_covered) {
        (Some(domain), _) => format!(
            "LIVE FILES   {path}: {} is copied as files by {domain}: the copy may be a mixture",
            database.kind
        ),
        (None, true) => format!("database     {path}: {}, covered", database.kind),
        (None, false) => {
            format!(
                "database     {path}: {}, no domain has its files (a stream that dumps it may say so: `data`)",
                database.kind
            )
        }
    }
}

fn json_lines(found: &Coverage, context: &Context) -> Result<(), Failure> {
    for item in &found.items {
        let (word, more) = words(&item.cover);
        let mut record = object(json!({"type": "item", "cover": word.to_lowercase()}));
        insert_bytes(&mut record, "path", item.path.as_os_str().as_bytes());
        let key = match item.cover {
            Cover::Unreadable(_) => "message",
            Cover::Own(_) | Cover::Ignored(_) => "reason",
            _ => "domain",
        };
        record.extend(object(json!({key: more, "files": item.files, "bytes": item.bytes})));
        if let Cover::Own(Own::Repository(name)) = &item.cover {
            record.insert("repository".into(), json!(name));
        }
        context.output.object(record)?;
    }
    for database in &found.databases {
        let mut record = object(json!({"type": "database", "kind": database.kind}));
        insert_bytes(&mut record, "path", database.path.as_os_str().as_bytes());
        record.extend(object(json!({"copied_by": database.copied_by, "covered": database.is_covered})));
        context.output.object(record)?;
    }
    context.output.object(object(json!({"type": "summary", "complete": found.is_complete()})))
}
