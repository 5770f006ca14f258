//! The repositories of a plan, opened when they are needed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use strongroom::backup::{self, BackupOptions, BackupReport, BackupSource, SnapshotLabels};
use strongroom::check;
use strongroom::copy::{self, Choice, CopyError, CopyOptions, CopyReport};
use strongroom::forget::{self, ForgetOptions};
use strongroom::format::note::DrillNote;
use strongroom::format::snapshot::Snapshot;
use strongroom::format::tree::Timestamp;
use strongroom::ids::SnapshotId;
use strongroom::repo::Repository;
use strongroom_ops::plan::Plan;
use strongroom_ops::plan::values::Name;
use strongroom_ops::run::vault::{CopyFailure, Job, Vault, VaultError};
use strongroom_ops::verify::Known;

use crate::commands::reserve::tell_spent;
use crate::context::{self, Context};
use crate::drills;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::monitor::CliMonitor;
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
    /// What their logs say of drills, as far as anybody has asked: whole logs are read for it.
    noted: RefCell<BTreeMap<Name, Vec<DrillNote>>>,
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
                vault_error(&failure)
            })
        });
        repository.clone()
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

impl Vault for Repositories<'_> {
    fn snapshots(&self, repo: &Name) -> Result<Vec<(SnapshotId, Snapshot)>, VaultError> {
        Ok(self.open(repo)?.readable_snapshots().0)
    }

    fn drills(&self, repo: &Name) -> Result<Vec<DrillNote>, VaultError> {
        let mut noted = self.noted.borrow_mut();
        if let Some(notes) = noted.get(repo) {
            return Ok(notes.clone());
        }
        let repository = self.open(repo)?;
        let notes = drills::notes(&repository).map_err(failed)?;
        noted.insert(repo.clone(), notes.clone());
        Ok(notes)
    }

    fn back_up(&self, repo: &Name, job: Job) -> Result<BackupReport, VaultError> {
        let repository = self.open(repo)?;
        let Job { host, tags, roots, filter, streams, accept, provenance } = job;
        let default = BackupOptions::default();
        let options = BackupOptions {
            labels: SnapshotLabels {
                host: host.unwrap_or_default(),
                tags,
                time: None,
                provenance: Some(provenance),
            },
            excludes: filter.exclude.clone(),
            threads: self.context.threads(default.threads),
            memory: self.context.memory(default.memory),
            spill: Some(context::temporary_place()),
            ..default
        };
        let source = BackupSource::Parts { roots, filter, streams, accept };
        let monitor = CliMonitor::new(&self.context.output, "files", Arc::clone(&self.cancelled));
        let report = backup::run(&repository, source, &options, &monitor);
        monitor.finish();
        report.map_err(failed)
    }

    fn kept(&self, repo: &Name, options: &ForgetOptions) -> Result<Vec<SnapshotId>, VaultError> {
        let repository = self.open(repo)?;
        let options = ForgetOptions { dry_run: true, ..options.clone() };
        let report = forget::run(&repository, &options, &LocalCalendar::system()).map_err(failed)?;
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
            let is_of_target = matches!(error, CopyError::Target(_));
            CopyFailure { is_of_target, error: failed(error) }
        })
    }

    fn forget(&self, repo: &Name, options: &ForgetOptions) -> Result<usize, VaultError> {
        let repository = self.open(repo)?;
        let report = forget::run(&repository, options, &LocalCalendar::system()).map_err(failed)?;
        tell_spent(&self.context.output, &report.reserve);
        Ok(report.counts().1)
    }
}
