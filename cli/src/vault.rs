//! The repositories of a plan, opened when they are needed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use strongroom::backup::{self, BackupOptions, BackupReport, BackupSource, SnapshotLabels};
use strongroom::check;
use strongroom::copy::{self, Choice, CopyError, CopyOptions, CopyReport};
use strongroom::forget::{self, ForgetOptions, ForgetReport};
use strongroom::format::commit::Change;
use strongroom::format::note::DrillNote;
use strongroom::format::snapshot::Snapshot;
use strongroom::format::tree::Timestamp;
use strongroom::ids::SnapshotId;
use strongroom::monitor::SNAPSHOT_UNREAD;
use strongroom::repo::Repository;
use strongroom_ops::noted::Noted;
use strongroom_ops::plan::Plan;
use strongroom_ops::plan::values::Name;
use strongroom_ops::run::vault::{CopyFailure, Forgotten, Job, Vault, VaultError};
use strongroom_ops::verify::Known;

use crate::commands::reserve::tell_spent;
use crate::context::{self, Context};
use crate::evidence;
use crate::exit::Exit;
use crate::failure::{Failure, refused_group};
use crate::monitor::CliMonitor;
use crate::plan;
use crate::units::LocalCalendar;

/// Repositories that were asked for, each opened once.
pub struct Repositories<'a> {
    /// What the command was given.
    pub context: &'a Context,
    plan: &'a Plan,
    /// Whether to end.
    pub cancelled: Arc<AtomicBool>,
    opened: RefCell<BTreeMap<Name, Result<Arc<Repository>, VaultError>>>,
    /// Those that could not be opened because they are damaged.
    damaged: RefCell<BTreeSet<Name>>,
    /// Those of whose snapshots everybody was told that cannot be read.
    told: RefCell<BTreeSet<Name>>,
    /// What their logs say to this host, as far as anybody has asked: whole logs are read for it.
    noted: RefCell<BTreeMap<Name, Rc<Noted>>>,
}

impl<'a> Repositories<'a> {
    /// None is opened yet.
    pub fn new(context: &'a Context, plan: &'a Plan, cancelled: Arc<AtomicBool>) -> Self {
        Self {
            context,
            plan,
            cancelled,
            opened: RefCell::default(),
            damaged: RefCell::default(),
            told: RefCell::default(),
            noted: RefCell::default(),
        }
    }

    /// Opens a repository, once.
    pub fn open(&self, name: &Name) -> Result<Arc<Repository>, VaultError> {
        let mut opened = self.opened.borrow_mut();
        let repository = opened.entry(name.clone()).or_insert_with(|| {
            let unknown = || Failure::new("unknown-name", format!("the plan has no repository {name}"));
            let repo = self.plan.repos.get(name).ok_or_else(unknown);
            let opened = repo.and_then(|repo| self.context.open_planned(self.plan, repo));
            opened.map(Arc::new).map_err(|failure| {
                if failure.exit == Exit::Damage {
                    self.damaged.borrow_mut().insert(name.clone());
                }
                let error = vault_error(&failure);
                let what = match failure.code {
                    "no-password" => {
                        format!("say where it is: password_file or password_command of [repo.{name}]")
                    }
                    "no-repository" => {
                        "is it mounted? Where it never was, `strongroom -r` with `init` makes it".into()
                    }
                    _ => return error,
                };
                VaultError { message: format!("{}; {what}", error.message), ..error }
            })
        });
        repository.clone()
    }

    /// The repositories that are open.
    pub fn opened(&self) -> impl Iterator<Item = (Name, Arc<Repository>)> {
        let opened = self.opened.borrow();
        let open =
            opened.iter().filter_map(|(name, found)| Some((name.clone(), Arc::clone(found.as_ref().ok()?))));
        open.collect::<Vec<_>>().into_iter()
    }

    /// What the log of a repository says to this host; it is read once.
    pub fn noted(&self, name: &Name) -> Result<Rc<Noted>, VaultError> {
        if let Some(noted) = self.noted.borrow().get(name) {
            return Ok(Rc::clone(noted));
        }
        let repository = self.open(name)?;
        let file = self
            .context
            .state_dir()
            .map(|state| state.join(evidence::FOLDER).join(format!("{}.json", repository.id())));
        let noted = evidence::noted(&repository, &plan::host(self.plan), file.as_deref()).map_err(failed)?;
        let noted = Rc::new(noted);
        self.noted.borrow_mut().insert(name.clone(), Rc::clone(&noted));
        Ok(noted)
    }

    /// Leaves a note in the log of a repository.
    pub fn note(&self, name: &Name, kind: &str, record: &[u8]) -> Result<(), VaultError> {
        let repository = self.open(name)?;
        let note = Change::Note { kind: kind.into(), record: record.to_vec().into() };
        repository.commit(&mut |_| Ok(vec![note.clone()])).map_err(failed)?;
        self.noted.borrow_mut().remove(name);
        Ok(())
    }

    /// Whether a repository could not be opened because it is damaged.
    pub fn is_damaged(&self, name: &Name) -> bool {
        self.damaged.borrow().contains(name)
    }

    /// What is known of the packs of a repository.
    pub fn known(&self, name: &Name) -> Result<Known, VaultError> {
        let repository = self.open(name)?;
        let found = check::readings(&repository).map_err(failed)?;
        let (snapshots, _) = repository.readable_snapshots();
        let time = |time: Timestamp| jiff::Timestamp::new(time.seconds, i32::try_from(time.nanos).ok()?).ok();
        Ok(Known {
            packs: found.packs,
            bytes: found.bytes,
            largest: found.largest,
            packs_never_read: found.packs_never_read,
            packs_in_doubt: found.packs_in_doubt,
            oldest_read: found.oldest_read.and_then(|(_, oldest)| time(oldest)),
            last_read: found.last_read.and_then(time),
            read: found.read.iter().filter_map(|(read, bytes)| Some((time(*read)?, *bytes))).collect(),
            stored: snapshots
                .iter()
                .filter_map(|(_, snapshot)| Some((time(snapshot.time)?, snapshot.summary.bytes_stored)))
                .collect(),
            since: snapshots.iter().filter_map(|(_, snapshot)| time(snapshot.time)).min(),
        })
    }

    /// A failure as those of repositories are told.
    pub fn error(failure: Failure) -> VaultError {
        failed(failure)
    }

    /// Takes in what others have committed meanwhile; what cannot be read is reported by whoever needs it.
    pub fn look_again(&self, name: &Name) {
        if let Ok(repository) = self.open(name) {
            let _unread = repository.refresh();
        }
    }

    /// Remembers where the logs end.
    pub fn remember_heads(&self) {
        for repository in self.opened.borrow().values().flatten() {
            self.context.remember_head_of(repository);
        }
    }

    /// Tells of parity that could not be stored.
    pub fn tell_parity_troubles(&self) {
        for repository in self.opened.borrow().values().flatten() {
            self.context.tell_parity_troubles_of(repository);
        }
    }
}

fn vault_error(failure: &Failure) -> VaultError {
    VaultError { code: failure.code.to_owned(), message: failure.message.clone() }
}

/// What a plan's run is told of an engine's error.
pub fn failed(error: impl Into<Failure>) -> VaultError {
    vault_error(&error.into())
}

/// Why policies were not asked about some groups.
///
/// # Errors
/// Why, where they were asked about none.
fn refused(report: &ForgetReport) -> Result<Vec<VaultError>, VaultError> {
    let mut errors: Vec<_> =
        report.refused().map(|(group, error)| failed(refused_group(group, error))).collect();
    if report.is_refused() { Err(errors.swap_remove(0)) } else { Ok(errors) }
}

impl Vault for Repositories<'_> {
    fn snapshots(&self, repo: &Name) -> Result<Vec<(SnapshotId, Snapshot)>, VaultError> {
        let (snapshots, unread) = self.open(repo)?.readable_snapshots();
        if self.told.borrow_mut().insert(repo.clone()) {
            self.context.tell_unread(&unread);
        }
        Ok(snapshots)
    }

    fn drills(&self, repo: &Name) -> Result<Vec<DrillNote>, VaultError> {
        Ok(self.noted(repo)?.drill_notes().cloned().collect())
    }

    fn held(&self, repo: &Name) -> Result<Vec<(SnapshotId, String)>, VaultError> {
        let fold = self.open(repo)?.fold();
        Ok(fold.snapshots().filter_map(|entry| Some((entry.snapshot, entry.hold.clone()?))).collect())
    }

    fn hold(&self, repo: &Name, snapshots: &[SnapshotId], reason: &str) -> Result<(), VaultError> {
        forget::hold_all(&*self.open(repo)?, snapshots, reason).map_err(failed)
    }

    fn release(&self, repo: &Name, held: &[(SnapshotId, String)], reason: &str) -> Result<(), VaultError> {
        forget::release_all(&*self.open(repo)?, held, reason).map_err(failed)
    }

    fn back_up(&self, repo: &Name, job: Job) -> Result<BackupReport, VaultError> {
        let repository = self.open(repo)?;
        let Job { host, tags, roots, filter, instead, growing, streams, accept, provenance } = job;
        let default = BackupOptions::default();
        let options = BackupOptions {
            labels: SnapshotLabels {
                host: host.unwrap_or_default(),
                tags,
                time: None,
                provenance: Some(provenance),
            },
            excludes: filter.exclude.clone(),
            growing,
            threads: self.context.threads(default.threads),
            memory: self.context.memory(default.memory),
            spill: Some(context::temporary_place()),
            ..default
        };
        let source = BackupSource::Parts { roots, filter, instead, streams, accept };
        let monitor = CliMonitor::new(&self.context.output, "files", Arc::clone(&self.cancelled));
        let is_told = !self.told.borrow_mut().insert(repo.clone());
        let monitor = if is_told { monitor.without(SNAPSHOT_UNREAD) } else { monitor };
        let report = backup::run(&repository, source, &options, &monitor);
        monitor.finish();
        report.map_err(failed)
    }

    fn kept(&self, repo: &Name, options: &ForgetOptions) -> Result<Vec<SnapshotId>, VaultError> {
        let repository = self.open(repo)?;
        let options = ForgetOptions { dry_run: true, ..options.clone() };
        let report = forget::run(&repository, &options, &LocalCalendar::system()).map_err(failed)?;
        refused(&report)?;
        let verdicts = report.groups.iter().flat_map(|group| &group.verdicts);
        Ok(verdicts.filter(|verdict| verdict.keep).map(|verdict| verdict.candidate.id).collect())
    }

    fn copy(&self, from: &Name, to: &Name, snapshots: &[SnapshotId]) -> Result<CopyReport, CopyFailure> {
        let of = |is_of_target: bool| move |error| CopyFailure { is_of_target, error };
        // What others committed since it was opened.
        let open = |name: &Name| {
            let repository = self.open(name)?;
            repository.refresh().map_err(failed)?;
            Ok(repository)
        };
        let (source, target) = (open(from).map_err(of(false))?, open(to).map_err(of(true))?);
        let default = CopyOptions::default();
        let options = CopyOptions {
            choice: Choice::Named(snapshots.to_vec()),
            threads: self.context.threads(default.threads),
            memory: self.context.memory(default.memory),
            spill: Some(context::temporary_place()),
            ..default
        };
        let monitor = CliMonitor::new(&self.context.output, "chunks", Arc::clone(&self.cancelled));
        let report = copy::run(&source, &target, &options, &monitor);
        monitor.finish();
        report.map_err(|error| {
            // Reading everything again would put it beside itself.
            let is_of_target = matches!(error, CopyError::Target(_) | CopyError::SameRepository { .. });
            CopyFailure { is_of_target, error: failed(error) }
        })
    }

    fn forget(&self, repo: &Name, options: &ForgetOptions) -> Result<Forgotten, VaultError> {
        let repository = self.open(repo)?;
        let report = forget::run(&repository, options, &LocalCalendar::system()).map_err(failed)?;
        tell_spent(&self.context.output, &report.reserve);
        Ok(Forgotten { snapshots: report.counts().1, refused: refused(&report)? })
    }
}

#[cfg(test)]
mod tests {
    use strongroom::forget::{Group, GroupKey, TimesError};
    use strongroom::ids::BlobId;
    use strongroom::reserve::Spent;

    use super::*;

    fn report(groups: &[bool]) -> ForgetReport {
        let (snapshot, time) = (SnapshotId::new(BlobId::from_bytes([7; 32])), Timestamp::default());
        let future = TimesError::Future { snapshot, time, now: time };
        let group = |is_refused: &bool| Group {
            key: GroupKey { host: Some("box".into()), ..GroupKey::default() },
            verdicts: Vec::new(),
            is_stale: false,
            refusal: is_refused.then(|| future.clone()),
        };
        let groups = groups.iter().map(group).collect();
        ForgetReport { groups, unread: Vec::new(), commit: None, reserve: Spent::default() }
    }

    #[test]
    fn retention_that_asks_nothing_fails_and_one_that_asks_something_tells_the_rest() {
        assert_eq!(refused(&report(&[])), Ok(Vec::new()));
        assert_eq!(refused(&report(&[false, false])), Ok(Vec::new()));
        let some = refused(&report(&[false, true])).expect("something was decided");
        assert!(some.len() == 1 && some[0].message.contains("host box"), "{some:?}");
        let none = refused(&report(&[true, true])).expect_err("nothing was decided");
        assert_eq!(none.code, "times-future");
    }
}
