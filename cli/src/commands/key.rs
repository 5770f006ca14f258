//! `key`: the passwords of a repository.

use std::path::PathBuf;

use serde_json::{Value, json};
use strongroom::ids::KeyslotId;
use strongroom::repo::{KeyInfo, Repository, RepositoryError};

use crate::commands::init::KdfArgs;
use crate::commands::snapshots::aligned;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{object, visible, with_schema};
use crate::password;

/// Arguments of `key`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  strongroom -r /backup/repo key add --label escrow --new-password-file escrow.txt"
)]
pub struct Args {
    /// What to do with keyslots.
    #[command(subcommand)]
    verb: Verb,
}

impl Args {
    /// Whether keyslots are only listed.
    pub fn is_list(&self) -> bool {
        matches!(self.verb, Verb::List)
    }
}

/// What to do with keyslots.
#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the keyslots
    #[command(after_help = "Example:\n  strongroom -r /backup/repo key list")]
    List,
    /// Add a keyslot for another password
    #[command(after_help = ADD_HELP)]
    Add {
        /// The new password.
        #[command(flatten)]
        new: NewPassword,
        /// What to call the keyslot
        #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
        label: String,
        /// The password is for a host that shall back up and neither read what is stored nor take anything away
        #[arg(long)]
        append_only: bool,
    },
    /// Replace the password this command is given by another
    #[command(after_help = "Example:\n  strongroom -r /backup/repo key passwd --new-password-file new.txt")]
    Passwd {
        /// The new password.
        #[command(flatten)]
        new: NewPassword,
    },
    /// Remove a keyslot: its password opens nothing any more
    #[command(
        after_help = "Whoever had the password may have kept the repository's secret: this shuts out, it does not \
                            change the secret.\n\nExample:\n  strongroom -r /backup/repo key remove 3fa81c22"
    )]
    Remove {
        /// Id of the keyslot or its first digits
        id: String,
    },
}

const ADD_HELP: &str = "\
With --append-only the password can back up, with deduplication, list snapshots and show the log. It
opens no contents, its own backups included, and can neither forget, prune, hold nor change keys: use
another password for that. What it can do all the same, and how to keep the storage from being
emptied by other means, is in docs/append-only.md.

Example:
  strongroom -r /backup/repo key add --label escrow
  strongroom -r /backup/repo key add --append-only --label web --new-password-file web.txt";

/// A password to be set and what a guess at it shall cost.
#[derive(Debug, clap::Args)]
struct NewPassword {
    /// Read the new password from this file; a line feed at its end is dropped
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// Cost of a password guess.
    #[command(flatten)]
    kdf: KdfArgs,
}

/// Does it.
pub fn run(args: &Args, context: &Context) -> Outcome {
    match &args.verb {
        Verb::List => list(&*context.open_to_add()?, context)?,
        Verb::Add { new, label, append_only } => {
            let kdf = new.kdf.params()?;
            let repository = context.open()?;
            let password = new_password(new, context)?;
            let (id, what) = match append_only {
                true => (repository.add_append_only_keyslot(&password, label, kdf)?, "added append-only"),
                false => (repository.add_keyslot(&password, label, kdf)?, "added"),
            };
            done(context, what, &id)?;
        }
        Verb::Passwd { new } => {
            let kdf = new.kdf.params()?;
            let repository = context.open()?;
            let password = new_password(new, context)?;
            let id = repository.change_password(&password, kdf)?;
            done(context, "changed the password; the keyslot is now", &id)?;
        }
        Verb::Remove { id } => {
            let id = context.open()?.remove_keyslot(id)?;
            done(context, "removed", &id)?;
        }
    }
    Ok(Exit::Ok)
}

fn new_password(new: &NewPassword, context: &Context) -> Result<strongroom::crypto::Password, Failure> {
    let password = context.limited(password::new(new.new_password_file.as_deref())?);
    if password.is_empty() {
        return Err(RepositoryError::EmptyPassword.into());
    }
    Ok(password)
}

fn done(context: &Context, what: &str, id: &KeyslotId) -> Result<(), Failure> {
    if context.output.json() {
        return context.output.object(object(json!({"type": "summary", "id": id})));
    }
    context.output.text(format!("{what} {id}"));
    Ok(())
}

fn list(repository: &Repository, context: &Context) -> Result<(), Failure> {
    let keyslots = repository.keyslots();
    if context.output.json() {
        let list = keyslots.iter().map(|info| {
            with_schema(object(json!({
                "id": info.entry.keyslot,
                "current": info.current,
                "label": info.entry.label,
                "writer": info.entry.writer,
                "added": info.entry.added,
                "append_only": info.entry.append_only,
            })))
        });
        return context.output.line(Value::Array(list.collect()).to_string());
    }
    let row = |info: &KeyInfo| {
        let id = if info.current {
            format!("*{}", info.entry.keyslot.short())
        } else {
            format!(" {}", info.entry.keyslot.short())
        };
        let may = if info.entry.append_only { "append" } else { "everything" };
        [id, info.entry.added.to_string(), may.to_owned(), visible(info.entry.label.as_bytes())]
    };
    let mut rows = vec![[" ID", "Commit", "May", "Label"].map(str::to_owned)];
    rows.extend(keyslots.iter().map(row));
    aligned(&rows, &[1]).into_iter().try_for_each(|line| context.output.line(line))
}
