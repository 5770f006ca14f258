//! The part of the check that looks at config, commit log, states and keyslots.

use std::collections::BTreeSet;

use crate::backend::{BackendError, Folder, ObjectKey};
use crate::check::context::Context;
use crate::format::commit::{Change, Commit};
use crate::format::config::{CONFIG_LEN_MAX, Config};
use crate::format::header::ObjectKind;
use crate::format::keyslot::{KEYSLOT_LEN, Keyslot};
use crate::format::note::{LOG_LOSS_NOTE, LogLossNote};
use crate::format::record::{self, RECORD_OBJECT_LEN_MAX, RecordError};
use crate::format::state::State;
use crate::log::{self, Fold, Junk, LogError, Origin, VoidEntry};
use crate::repo::tail::{Beyond, parity_beyond};
use crate::sidecar;
use std::sync::Arc;

/// Lost commits that are told one by one.
const LOST_TOLD_MAX: usize = 100;

/// An object and the hash that its bytes have.
pub(super) type Hashed = (ObjectKey, [u8; 32]);

/// What was looked at here.
pub(super) struct Checked {
    /// What the log amounts to; where it cannot be read, what the repository knew when it was opened.
    pub fold: Arc<Fold>,
    /// Entries that count, and states and keyslots that are sound.
    pub objects: Vec<Hashed>,
}

/// Reads the whole log.
pub(super) fn check(context: &Context<'_>) -> Result<Checked, BackendError> {
    config(context);
    let mut states = BTreeSet::new();
    context.list(Folder::State, &mut |key, _| states.extend(key.sequence()))?;
    let mut objects = Vec::new();
    let fold = match read(context, &states, &mut objects) {
        Some(fold) => {
            check_beyond_end(context, &fold, &states);
            check_lost_end(context, &fold);
            if fold.seq() == 0 && !context.found_damage() {
                let message = "there is no entry: the log was lost. Copy its entries back from a copy of the repository";
                context.damage("log-lost", &"log", message);
            }
            // More was made of a damaged log than it amounts to.
            if context.repository.is_salvaged() { context.repository.fold() } else { Arc::new(fold) }
        }
        None => context.repository.fold(),
    };
    context.go_by(&fold);
    keyslots(context, &fold, &mut objects)?;
    context.list(Folder::Log, &mut |key, _| {
        if key.sequence() == Some(0) {
            context.note("foreign-object", &key, "commits are counted from 1; it may be deleted");
        }
    })?;
    Ok(Checked { fold, objects })
}

fn config(context: &Context<'_>) {
    let key = ObjectKey::config();
    match context.backend().read(&key, CONFIG_LEN_MAX) {
        Ok(bytes) if bytes == context.repository.config_bytes() => {}
        Ok(_) => {
            context.damage(
                "config-damaged",
                &key,
                "it is not the config that the repository was opened with",
            );
        }
        Err(error) => context.damage("config-damaged", &key, error.to_string()),
    }
}

/// Reads the log from its first entry, stopping at each state to compare it.
fn read(context: &Context<'_>, states: &BTreeSet<u64>, objects: &mut Vec<Hashed>) -> Option<Fold> {
    let repository = context.repository;
    let opened = repository.fold();
    let mut fold = Fold::empty(Config::hash(repository.config_bytes()));
    let mut voids = Voids::default();
    let stops = states.iter().copied().chain([opened.seq()]).collect::<BTreeSet<_>>();
    for stop in stops.into_iter().chain([u64::MAX]) {
        let result = log::read_until(
            &**context.backend(),
            repository.keys(),
            &repository.id(),
            &mut fold,
            stop,
            &mut |entry| match entry {
                Ok(entry) => {
                    objects.push((ObjectKey::log(entry.commit.seq), *entry.hash.as_bytes()));
                    voids.pass(&entry.commit);
                }
                Err(void) => voids.entries.push(void),
            },
        );
        if let Err(error) = result {
            voids.report(context);
            report(context, &error, fold.seq() + 1);
            return None;
        }
        if fold.seq() == stop && states.contains(&stop) {
            objects.extend(state(context, &fold));
        }
        if stop == opened.seq() && !repository.is_salvaged() {
            compare_opened(context, &fold, &opened);
        }
    }
    voids.report(context);
    if let Err(error) = check_ahead(context, &fold) {
        report(context, &error, fold.seq() + 1);
    }
    Some(fold)
}

/// Tells of what stands behind the end of the log with a number left out before it: junk, unless an entry is missing.
fn check_ahead(context: &Context<'_>, fold: &Fold) -> Result<(), LogError> {
    let repository = context.repository;
    let (backend, keys, id) = (&**context.backend(), repository.keys(), repository.id());
    let ahead = log::ahead(backend, keys, &id, fold, &mut Junk::default())?;
    for ahead in ahead.iter().filter(|ahead| !ahead.is_entry) {
        let message = format!(
            "it is no entry of the log, which ends at {}: the number will be passed over. It may be deleted",
            fold.seq()
        );
        context.note("foreign-object", &ObjectKey::log(ahead.seq), message);
    }
    log::no_gap(fold, &ahead)
}

/// Reports why the log is not read on, when `next` came.
fn report(context: &Context<'_>, error: &LogError, next: u64) {
    match error {
        // The commit that names its predecessor is signed: it is the predecessor that was altered.
        LogError::Chain { seq: 1, .. } => {
            context.damage("config-damaged", &ObjectKey::config(), error.to_string());
        }
        LogError::Chain { seq, .. } => {
            context.damage("log-damaged", &ObjectKey::log(seq - 1), error.to_string());
        }
        LogError::Gap { missing, .. } => {
            context.damage("log-gap", &ObjectKey::log(*missing), error.to_string());
        }
        // Nobody is to blame, but what comes after it was not checked.
        LogError::NotUnderstood { seq, .. } => {
            context.damage("log-not-understood", &ObjectKey::log(*seq), error.to_string());
        }
        LogError::Backend(_) => context.damage("log-damaged", &ObjectKey::log(next), error.to_string()),
    }
}

/// Entries that do not count, and what valid ones say of them.
#[derive(Default)]
struct Voids {
    entries: Vec<VoidEntry>,
    last_valid: u64,
    /// Losses that are on record.
    known: BTreeSet<LogLossNote>,
}

impl Voids {
    fn pass(&mut self, commit: &Commit) {
        self.last_valid = commit.seq;
        self.known.extend(commit.changes.iter().filter_map(|change| match change {
            Change::Note { kind, record } if kind == LOG_LOSS_NOTE => {
                record::decode::<LogLossNote>(record).ok()
            }
            _ => None,
        }));
    }

    /// What was sealed under our key and does not open was a commit, and was altered: something is lost until somebody
    /// has said that they know. Anything else behind which there is a valid commit is noise: that commit's writer
    /// has passed over it. Behind the last valid commit nobody can tell whether the entry was ever worth
    /// anything, unless it is whole and merely not entitled.
    fn report(&self, context: &Context<'_>) {
        for VoidEntry { seq, hash, reason, origin } in &self.entries {
            let key = ObjectKey::log(*seq);
            if self.known.contains(&LogLossNote { seq: *seq, hash: *hash }) {
                context.note(
                    "log-void",
                    &key,
                    format!("it does not count, and its loss is on record: {reason}"),
                );
            } else if *origin == Origin::Commit {
                let what = "it was a commit, and what it said is lost: maybe a snapshot. \
                            `repair objects` gives it back where there is parity of it, or copy its file back from a copy of the repository";
                context.damage("log-damaged", &key, format!("it does not count: {reason}; {what}"));
            } else if *origin == Origin::Same || *seq < self.last_valid {
                context.note("log-void", &key, format!("it does not count: {reason}"));
            } else {
                let doubt = "if it was a commit once, what it said is lost";
                context.damage("log-damaged", &key, format!("it does not count: {reason}; {doubt}"));
            }
        }
    }
}

/// The log has to go on from where it stood when the repository was opened.
fn compare_opened(context: &Context<'_>, fold: &Fold, opened: &Fold) {
    let key = ObjectKey::log(opened.seq());
    if fold.seq() < opened.seq() {
        let message =
            format!("it was there when the repository was opened; the log now ends at {}", fold.seq());
        context.damage("log-rolled-back", &key, message);
    } else if fold.head() != opened.head() {
        context.damage("log-damaged", &key, "it is another entry than when the repository was opened");
    } else if *fold != *opened {
        let message = "the repository was opened from a state that is not what the log amounts to";
        context.damage("state-damaged", &"state", message);
    }
}

/// Compares the state of the fold's last entry with the fold.
fn state(context: &Context<'_>, fold: &Fold) -> Option<Hashed> {
    const DERIVED: &str = "states are derived: it may be deleted";
    let key = ObjectKey::state(fold.seq());
    match open_state(context, &key) {
        Ok((state, hash)) if state == fold.to_state() => return Some((key, hash)),
        Ok(_) => {
            let message = format!("it is not what the log up to {} amounts to; {DERIVED}", fold.seq());
            context.damage("state-damaged", &key, message);
        }
        // Whoever writes a newer one deletes an old one.
        Err(StateError::Backend(error)) if error.is_not_found() => {}
        Err(problem) => context.damage("state-damaged", &key, format!("{problem}; {DERIVED}")),
    }
    None
}

/// A state cannot be used.
#[derive(Debug, thiserror::Error)]
enum StateError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A state, and the hash of its object.
fn open_state(context: &Context<'_>, key: &ObjectKey) -> Result<(State, [u8; 32]), StateError> {
    let repository = context.repository;
    let object = context.backend().read(key, RECORD_OBJECT_LEN_MAX)?;
    let hash = *blake3::hash(&object).as_bytes();
    Ok((record::open_object(ObjectKind::State, object, repository.keys(), &repository.id())?, hash))
}

/// A state of a commit that the log does not have: commits are gone, or it never was a state.
fn check_beyond_end(context: &Context<'_>, fold: &Fold, states: &BTreeSet<u64>) {
    for seq in states.range(fold.seq() + 1..).copied().chain(states.contains(&0).then_some(0)) {
        let key = ObjectKey::state(seq);
        match open_state(context, &key) {
            Ok((state, _)) if state.seq == seq && seq > 0 => {
                let message = format!("the log ends at {}, but a state of commit {seq} exists", fold.seq());
                context.damage("log-rolled-back", &ObjectKey::log(seq), message);
            }
            Ok(_) => {
                context.damage(
                    "state-damaged",
                    &key,
                    "it stands in another state's place; it may be deleted",
                );
            }
            Err(problem) => {
                context.damage(
                    "state-damaged",
                    &key,
                    format!("{problem}; states are derived: it may be deleted"),
                );
            }
        }
    }
}

/// Parity of a commit that the log does not have: it was published, and is gone.
fn check_lost_end(context: &Context<'_>, fold: &Fold) {
    let repository = context.repository;
    let (backend, keys, id) = (&**repository.backend(), repository.keys(), repository.id());
    for seq in (fold.seq() + 1..).take(LOST_TOLD_MAX) {
        let found = match parity_beyond(backend, keys, &id, seq) {
            Ok(found) => found,
            Err(error) => {
                let message =
                    format!("whether there is parity of a lost commit {seq} cannot be looked up: {error}");
                // Nothing fails for parity that cannot be had.
                context.note("parity-damaged", &ObjectKey::log(seq), message);
                break;
            }
        };
        match found {
            Beyond::Nothing => break,
            Beyond::Lost => {
                let message =
                    format!("the log ends at {}, but parity of commit {seq} exists: it is lost", fold.seq());
                context.damage("log-rolled-back", &ObjectKey::log(seq), message);
            }
            Beyond::Junk => {
                let key = sidecar::key_of(&ObjectKey::log(seq)).expect("entries of the log have one");
                let message = format!(
                    "it stands for parity of commit {seq}, which does not exist, and is none; it may be deleted"
                );
                context.note("foreign-object", &key, message);
            }
        }
    }
}

fn keyslots(context: &Context<'_>, fold: &Fold, objects: &mut Vec<Hashed>) -> Result<(), BackendError> {
    for entry in fold.keyslots() {
        let key = ObjectKey::keyslot(&entry.keyslot);
        match context.backend().read(&key, KEYSLOT_LEN as u64) {
            Ok(object) if Keyslot::id(&object) == entry.keyslot => {
                objects.push((key, *entry.keyslot.as_bytes()));
            }
            Ok(_) => context.damage("keyslot-damaged", &key, "its bytes are not those of its id"),
            Err(error) if error.is_not_found() => {
                let message = format!("the log lists keyslot {:?}, but it is not there", entry.label);
                context.damage("keyslot-missing", &key, message);
            }
            Err(error) => context.damage("keyslot-damaged", &key, error.to_string()),
        }
    }
    context.list(Folder::Keys, &mut |key, _| {
        if key.keyslot_id().is_none_or(|id| fold.keyslot(&id).is_none()) {
            let message = "no commit in force lists it: left by an interrupted change of keys, or foreign; `key remove` deletes one \
                           that was to be removed";
            context.note("keyslot-unlisted", &key, message);
        }
    })
}
