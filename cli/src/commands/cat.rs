//! `cat`: an object of the repository as JSON.

use serde_json::{Value, json};
use strongroom::backend::{BackendError, ObjectKey};
use strongroom::browse;
use strongroom::format::commit::{self, Commit};
use strongroom::format::config::Config;
use strongroom::format::header::ObjectKind;
use strongroom::format::ledger::Ledger;
use strongroom::format::pack::{self, PACK_LEN_MAX, PackError};
use strongroom::format::record::RECORD_OBJECT_LEN_MAX;
use strongroom::ids::{BlobId, PackId};
use strongroom::repo::Repository;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Object, object, with_schema};
use crate::records;

/// Arguments of `cat`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  strongroom -r /backup/repo cat config\n  strongroom -r /backup/repo cat log 7"
)]
pub struct Args {
    /// Which object.
    #[command(subcommand)]
    what: What,
}

/// An object to show.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// The config
    Config,
    /// An entry of the commit log
    Log {
        /// Its number
        seq: u64,
    },
    /// The verification ledger: when each pack was last verified, and how
    Ledger,
    /// The record of a snapshot
    Snapshot {
        /// An id or its first digits, or `latest`
        snapshot: String,
    },
    /// A tree blob: a directory or a part of a large one
    Tree {
        /// Its id, as in `cat snapshot` and `cat tree`
        id: BlobId,
    },
    /// The directory of a pack: its blocks and blobs
    Pack {
        /// Its id
        id: PackId,
    },
}

/// Shows an object: over several lines for people, on one with `--json`.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let repository = context.open()?;
    let record = match &args.what {
        What::Config => config(&repository)?,
        What::Log { seq } => log_entry(&repository, *seq)?,
        What::Ledger => ledger(&repository)?,
        What::Snapshot { snapshot } => {
            context.tell_unread(&repository.readable_snapshots().1);
            let (id, snapshot) = repository.find_snapshot(snapshot)?;
            records::snapshot(&id, &snapshot)
        }
        What::Tree { id } => {
            let tree = browse::load(repository.reader(), id)?;
            records::tree(&tree)
                .map_err(|error| Failure::damage("tree-damaged", format!("tree {id} is damaged: {error}")))?
        }
        What::Pack { id } => pack(&repository, id)?,
    };
    let text = if context.output.json() {
        with_schema(record).to_string()
    } else {
        format!("{:#}", Value::Object(record))
    };
    context.output.line(text)?;
    Ok(Exit::Ok)
}

fn config(repository: &Repository) -> Result<Object, Failure> {
    let config = Config::decode(repository.config_bytes())
        .map_err(|error| Failure::damage("config-damaged", error))?;
    Ok(object(json!({
        "id": config.repository,
        "must_understand": config.must_understand,
        "created_by": config.created_by,
    })))
}

fn log_entry(repository: &Repository, seq: u64) -> Result<Object, Failure> {
    let object = repository.backend().read(&ObjectKey::log(seq), RECORD_OBJECT_LEN_MAX);
    let bytes = object.map_err(|error| not_there(error, format!("the log has no entry {seq}")))?;
    let (hash, size) = (commit::hash(&bytes), bytes.len());
    let (entry, writer) = Commit::open(bytes, seq, repository.keys(), &repository.id())
        .map_err(|error| Failure::damage("log-damaged", format!("log entry {seq} is void: {error}")))?;
    let mut record = records::commit(&entry, repository.keys());
    record.extend(crate::output::object(json!({"writer": writer, "hash": hash, "size": size})));
    Ok(record)
}

fn ledger(repository: &Repository) -> Result<Object, Failure> {
    let id = repository.fold().ledger();
    let id = id.ok_or_else(|| Failure::new("no-object", "nothing was verified yet: there is no ledger"))?;
    let bytes = repository.backend().read(&ObjectKey::ledger(&id), RECORD_OBJECT_LEN_MAX);
    let bytes = bytes.map_err(|error| not_there(error, format!("there is no ledger {id}")))?;
    let size = bytes.len();
    let ledger = Ledger::open(bytes, repository.keys(), &repository.id())
        .map_err(|error| Failure::damage("ledger-damaged", format!("ledger {id} is damaged: {error}")))?;
    Ok(records::ledger(&id, size, &ledger))
}

fn pack(repository: &Repository, id: &PackId) -> Result<Object, Failure> {
    let bytes = repository
        .backend()
        .read(&ObjectKey::pack(id), PACK_LEN_MAX)
        .map_err(|error| not_there(error, format!("there is no pack {id}")))?;
    let open = |kind| pack::open(&bytes, kind, repository.keys(), &repository.id());
    let opened = open(ObjectKind::DataPack).map(|opened| ("data", opened)).or_else(|error| match error {
        PackError::Header(_) => open(ObjectKind::MetadataPack).map(|opened| ("metadata", opened)),
        error => Err(error),
    });
    let damaged =
        |error: &PackError| Failure::damage("pack-damaged", format!("pack {id} is damaged: {error}"));
    let (kind, (_, directory)) = opened.map_err(|error| damaged(&error))?;
    let mut record = object(json!({"id": id, "type": kind, "size": bytes.len()}));
    record.extend(records::directory(&directory));
    Ok(record)
}

/// An object that was asked for by name and is not there is no damage.
fn not_there(error: BackendError, message: String) -> Failure {
    if error.is_not_found() { Failure::new("no-object", message) } else { error.into() }
}
