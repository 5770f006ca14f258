//! `snapshot`: what can be done with a single snapshot: hold it, so that nobody forgets it, and release it.

use serde_json::json;
use strongroom::forget;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::output::object;

/// Arguments of `snapshot`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  strongroom -r /backup/repo snapshot hold 3fa81c22 --reason 'audit of 2026, until March'"
)]
pub struct Args {
    /// What to do with the snapshot.
    #[command(subcommand)]
    verb: Verb,
}

/// What to do with the snapshot.
#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Hold a snapshot: neither policies nor people can forget it until it is released
    #[command(
        after_help = "Example:\n  strongroom -r /backup/repo snapshot hold 3fa81c22 --reason 'audit of 2026'"
    )]
    Hold(Which),
    /// Release a held snapshot
    #[command(
        after_help = "Example:\n  strongroom -r /backup/repo snapshot release 3fa81c22 --reason 'audit is over'"
    )]
    Release(Which),
}

/// Which one, and why.
#[derive(Debug, clap::Args)]
struct Which {
    /// An id or its first digits, or `latest`
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

/// Does it.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let (Verb::Hold(which) | Verb::Release(which)) = &args.verb;
    let repository = context.open()?;
    let id = repository.find_snapshot_id(&which.snapshot)?;
    let (commit, said) = match &args.verb {
        Verb::Hold(_) => (Some(forget::hold(&repository, id, &which.reason)?), "is held"),
        Verb::Release(_) => match forget::release(&repository, id, &which.reason)? {
            Some(commit) => (Some(commit), "is released"),
            None => (None, "was not held"),
        },
    };
    if context.output.json() {
        let mut summary = object(json!({"type": "summary", "snapshot_id": id}));
        summary.extend(commit.map(|commit| ("commit".to_owned(), json!(commit))));
        context.output.object(summary)?;
    } else {
        context.output.text(format!("snapshot {} {said}", id.short()));
    }
    Ok(Exit::Ok)
}
