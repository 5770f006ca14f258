//! What is done now and then: snapshots are held and released, parity comes and goes, and everything is repaired that is not broken.
//!
//! Nothing is damaged here, so a repair has nothing to do but to be in nobody's way. Only snapshots whose writers came to no end are
//! there to be added again.

use strongroom::forget::policy::{GroupBy, Period, Policy, Reach, Rule};
use strongroom::forget::{self, ForgetError, ForgetOptions, ForgetReport, Guards, Selection, Wish};
use strongroom::ids::SnapshotId;
use strongroom::monitor::Silent;
use strongroom::parity::{self, AddOptions, AddReport, CoverError};
use strongroom::rebuild::{self, RebuildError, RebuildOptions, RebuildReport};
use strongroom::repair::lost::{self, LostOptions, LostReport, LostSnapshot};
use strongroom::repair::{self, PacksOptions, PacksReport, RepairError, Sources};
use strongroom::repair::{SnapshotsOptions, SnapshotsReport};
use strongroom::repo::{Repository, RepositoryError};
use strongroom::testing::NoCalendar;
use strongroom::vet::VetError;

use super::audit;
use super::process::{Failed, Process, snapshots};

/// Forgets all snapshots of a series but the last one.
fn forget_by_policy(repository: &Repository) -> Result<ForgetReport, ForgetError> {
    let last = Rule { period: Period::Each, reach: Reach::Count(1) };
    let options = ForgetOptions {
        wish: Wish::Policy(Policy { rules: vec![last], ..Policy::default() }),
        selection: Selection::default(),
        // Processes have hosts of their own: by these, hardly anything would go.
        group_by: GroupBy { host: false, ..GroupBy::default() },
        guards: Guards { allow_empty: true, allow_newest: true, allow_mass: true, trust_times: true },
        dry_run: false,
        reason: "simulated".into(),
    };
    forget::run(repository, &options, &NoCalendar)
}

/// Makes parity of everything.
pub fn add_parity(repository: &Repository) -> Result<AddReport, CoverError> {
    parity::add(repository, &AddOptions { threads: 1, ..AddOptions::default() }, &Silent)
}

/// Makes the index anew.
pub fn repair_index(repository: &Repository) -> Result<RebuildReport, RebuildError> {
    rebuild::run(repository, &RebuildOptions::default(), &Silent)
}

/// Looks for packs to be repaired.
pub fn repair_packs(repository: &Repository, is_thorough: bool) -> Result<PacksReport, RepairError> {
    let options = PacksOptions { read_data: is_thorough, threads: 1, level: 1, ..PacksOptions::default() };
    repair::packs::run(repository, &options, &Sources::default(), &Silent)
}

/// Adds all snapshots that are in no log and of which everything is there. Each is named: no log here shows a loss, so nothing would be
/// added unasked.
pub fn repair_lost(repository: &Repository) -> Result<LostReport, RepairError> {
    let options = LostOptions { threads: 1, dry_run: true, ..LostOptions::default() };
    let report = lost::run(repository, &options, &Silent)?;
    let whole = report.snapshots.iter().filter(|found| found.lacks.is_none());
    let snapshots: Vec<_> = whole.map(|found| found.id.to_string()).collect();
    match snapshots.is_empty() {
        true => Ok(report),
        false => lost::run(repository, &LostOptions { snapshots, dry_run: false, ..options }, &Silent),
    }
}

/// Takes snapshots of which something is lost for what they still are.
pub fn repair_snapshots(repository: &Repository) -> Result<SnapshotsReport, RepairError> {
    let options = SnapshotsOptions { forget: true, threads: 1, ..SnapshotsOptions::default() };
    repair::snapshots::run(repository, &options, &Silent)
}

/// What a repair says if others were in the way.
fn of_repair(error: &RepairError) -> Failed {
    match error {
        RepairError::Overtaken
        | RepairError::Repository(RepositoryError::Conflict)
        | RepairError::Vet(VetError::Repository(RepositoryError::Conflict)) => {
            Failed::Conflict(error.to_string())
        }
        _ => Failed::Unexpected(error.to_string()),
    }
}

impl Process {
    pub fn hold(&self, repository: &Repository, which: u64) -> Result<(), Failed> {
        let snapshots = snapshots(repository)?;
        let Some((id, snapshot)) = snapshots.get(which as usize % snapshots.len().max(1)) else {
            return Ok(());
        };
        let begun = self.told().holds.begin(*id);
        match forget::hold(repository, *id, "simulated") {
            Ok(_) => self.told().holds.end(*id, begun),
            // Its backup went on, or came to its end.
            Err(RepositoryError::NoSnapshot(_)) if snapshot.partial => {}
            Err(error @ RepositoryError::NoSnapshot(_)) => self.was_forgotten(id, &error)?,
            Err(error) => return Err(Failed::Unexpected(error.to_string())),
        }
        Ok(())
    }

    pub fn release(&self, repository: &Repository, which: u64) -> Result<(), Failed> {
        let fold = repository.fold();
        let is_held = |(id, _): &(SnapshotId, _)| fold.snapshot(id).is_some_and(|entry| entry.hold.is_some());
        let held: Vec<_> = snapshots(repository)?.into_iter().filter(is_held).collect();
        drop(fold);
        let Some((id, snapshot)) = held.get(which as usize % held.len().max(1)) else { return Ok(()) };
        self.told().holds.begin_release(*id);
        match forget::release(repository, *id, "simulated") {
            Ok(_) => {}
            // Somebody else released it before, and then its backup went on.
            Err(RepositoryError::NoSnapshot(_)) if snapshot.partial => {}
            Err(error @ RepositoryError::NoSnapshot(_)) => self.was_forgotten(id, &error)?,
            Err(error) => return Err(Failed::Unexpected(error.to_string())),
        }
        self.told().holds.end_release(*id);
        Ok(())
    }

    /// A snapshot that was there is not there any more: somebody has to have wanted that.
    fn was_forgotten(&self, id: &SnapshotId, error: &RepositoryError) -> Result<(), Failed> {
        let told = self.told();
        match told.forgotten.contains(id) || told.policies {
            true => Ok(()),
            false => Err(Failed::Unexpected(error.to_string())),
        }
    }

    pub fn forget_by_policy(&self, repository: &Repository) -> Result<(), Failed> {
        let (before, begun): (Vec<_>, _) = {
            let mut told = self.told();
            told.policies = true;
            let held = told.holds.certain().iter().map(|id| (*id, told.holds.state(id))).collect();
            (held, told.begin_to_forget())
        };
        let report = forget_by_policy(repository).map_err(|error| Failed::Unexpected(error.to_string()))?;
        let verdicts = report.groups.iter().flat_map(|group| &group.verdicts);
        let gone: Vec<SnapshotId> =
            verdicts.filter(|verdict| !verdict.keep).map(|verdict| verdict.candidate.id).collect();
        let mut told = self.told();
        for (id, state) in before {
            if told.holds.state(&id) == state && gone.contains(&id) {
                return Err(Failed::Unexpected(format!("{id} is held, and was forgotten by a policy")));
            }
        }
        gone.into_iter().for_each(|id| told.is_forgotten(id, begun));
        Ok(())
    }

    pub fn add_parity(&self, repository: &Repository) -> Result<(), Failed> {
        let report = add_parity(repository).map_err(|error| Failed::Unexpected(error.to_string()))?;
        // Appenders may list what is not there.
        if !report.damaged.is_empty() && !self.with_appenders {
            return Err(Failed::Unexpected(format!("cannot be covered: {:?}", report.damaged)));
        }
        Ok(())
    }

    pub fn drop_parity(&self, repository: &Repository) -> Result<(), Failed> {
        parity::drop_all(repository, &Silent).map(drop).map_err(|error| Failed::Unexpected(error.to_string()))
    }

    pub fn repair_index(&self, repository: &Repository) -> Result<(), Failed> {
        match repair_index(repository) {
            Ok(report) if report.damaged.is_empty() => Ok(()),
            Ok(report) => Err(Failed::Unexpected(format!("damaged: {report:?}"))),
            Err(
                error @ (RebuildError::Repository(RepositoryError::Conflict)
                | RebuildError::Vet(VetError::Repository(RepositoryError::Conflict))),
            ) => Err(Failed::Conflict(error.to_string())),
            Err(error) => Err(Failed::Unexpected(error.to_string())),
        }
    }

    pub fn repair_packs(&self, repository: &Repository, is_thorough: bool) -> Result<(), Failed> {
        let report = repair_packs(repository, is_thorough).map_err(|error| of_repair(&error))?;
        let is_worse = report.after.as_ref().is_some_and(audit::is_worse_than_lies);
        // What only appenders list may be damaged for all that anybody knows.
        let is_damaged = report.damaged() > 0 && !self.with_appenders;
        if report.lost_count > 0 || is_damaged || is_worse {
            return Err(Failed::Unexpected(format!("there was nothing to be repaired: {report:#?}")));
        }
        Ok(())
    }

    pub fn repair_lost(&self, repository: &Repository) -> Result<(), Failed> {
        let report = repair_lost(repository).map_err(|error| of_repair(&error))?;
        if report.commit.is_some() {
            let mut told = self.told();
            // A partial one may be superseded by the next backup.
            let is_there = |found: &&LostSnapshot| found.is_added() && !found.snapshot.partial;
            let added = report.snapshots.iter().filter(is_there);
            added.for_each(|found| told.is_made(found.id));
        }
        Ok(())
    }

    pub fn repair_snapshots(&self, repository: &Repository) -> Result<(), Failed> {
        let report = repair_snapshots(repository).map_err(|error| of_repair(&error))?;
        // What was forgotten while it was followed lacks what a prune took, and is not touched.
        if report.commit.is_some() || report.left() > 0 {
            return Err(Failed::Unexpected(format!("no snapshot lacks anything: {report:#?}")));
        }
        Ok(())
    }
}
