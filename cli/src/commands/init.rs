//! `init`: makes a repository, with the folders it needs.

use std::sync::Arc;

use serde_json::json;
use strongroom::backend::{Backend, LocalBackend};
use strongroom::crypto::KdfParams;
use strongroom::format::parity::Overhead;
use strongroom::repo::{InitOptions, Repository, RepositoryError};
use strongroom::reserve::{self, ReserveError};

use crate::context::{Context, environment};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::location::Location;
use crate::output::object;
use crate::{password, units};

const AFTER_HELP: &str = "\
The folder is made if it is missing. One that exists has to be empty: a repository shares its
folder with nothing. An `init` that was broken off is gone on with by the next one, with the
same password and with the options that are given then.

Example:
  strongroom -r /backup/repo init --password-file /etc/strongroom/password";

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// What to call the first keyslot
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    label: String,
    /// Keep parity of all objects, so that a few damaged sectors of each can be made good; of the
    /// config and the keyslots it is a copy
    #[arg(long, value_name = "PERCENT", value_parser = units::parse_overhead)]
    parity: Option<Overhead>,
    /// Keep so much room free, for the day on which the storage is full, and more as the index
    /// grows: see `reserve`; 0 for none [default: 4MiB]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    reserve: Option<u64>,
    /// Cost of a password guess.
    #[command(flatten)]
    kdf: KdfArgs,
}

/// How much a guess of the password shall cost.
#[derive(Debug, clap::Args)]
pub struct KdfArgs {
    /// Memory that trying a password takes [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    kdf_memory: Option<u64>,
    /// Passes over this memory [default: 3]
    #[arg(long, value_name = "N")]
    kdf_passes: Option<u32>,
}

impl KdfArgs {
    /// The parameters, within the bounds of the format.
    pub fn params(&self) -> Result<KdfParams, Failure> {
        let default = KdfParams::default();
        let memory_kib = self.kdf_memory.map(|bytes| u32::try_from(bytes >> 10).unwrap_or(u32::MAX));
        let params = KdfParams {
            memory_kib: memory_kib.unwrap_or(default.memory_kib),
            passes: self.kdf_passes.unwrap_or(default.passes),
            ..default
        };
        params.check()?;
        Ok(params)
    }
}

/// Makes a repository.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let (kdf, label) = (args.kdf.params()?, args.label.clone());
    let room = Some(args.reserve.unwrap_or(reserve::LEN_USUAL)).filter(|bytes| *bytes > 0);
    let options = InitOptions { kdf, label, parity: args.parity, reserve: room };
    room.map_or(Ok(()), reserve::check_len)?;
    let Location::Local(path) = context.location()?;
    // Before anybody is asked for a password, and before any folder is made in something else.
    if let Ok(backend) = LocalBackend::open(&path) {
        let location = backend.location();
        match Repository::find(&backend) {
            // One that was broken off is gone on with.
            Ok(()) if Repository::is_unfinished(&backend)? => {}
            Ok(()) => return Err(RepositoryError::Exists { location }.into()),
            Err(RepositoryError::Absent { .. }) => {
                if let Some(found) = backend.foreign_entry()? {
                    let found = String::from_utf8_lossy(&found).into_owned();
                    return Err(RepositoryError::NotEmpty { location, found }.into());
                }
            }
            // Told by whoever makes it, unless another one has just made it whole.
            Err(_) => {}
        }
    }
    let password = context.limited(password::first(&context.global)?);
    if password.is_empty() {
        return Err(RepositoryError::EmptyPassword.into());
    }
    options.kdf.check_for(&password)?;
    let backend = LocalBackend::create_repository(&path)?;
    let made = Repository::init(Arc::new(backend), &password, &options, environment());
    let repository = made.map_err(|error| match error {
        RepositoryError::WrongPassword { .. } => Failure::from(error).hint(
            "an `init` was broken off here: give the password that it was given. Nothing is stored yet, so the folder can also be removed",
        ),
        error => error.into(),
    })?;
    let (id, location) = (repository.id(), repository.location());
    let reserved = room.map_or(Ok(()), |bytes| reserve::set(&repository, bytes).map(drop));
    context.work_on(repository);
    context.output.text(format!("made repository {id} at {location}"));
    context
        .output
        .note("Without the password nobody can read what is stored: keep it where it survives this machine.");
    if context.output.json() {
        context.output.object(object(json!({"type": "summary", "id": id, "repository": location})))?;
    }
    // The repository is made all the same.
    match reserved {
        // Nobody has asked for one.
        Err(error @ ReserveError::NoRoom { .. }) if args.reserve.is_none() => {
            let what =
                "there is no room for the usual reserve; `strongroom reserve set` makes one once there is";
            context.output.alert(&format!("warning: {what}: {error}"));
        }
        reserved => reserved?,
    }
    Ok(Exit::Ok)
}
