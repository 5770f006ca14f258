//! Recoveries that go back, go on after a kill, or come to their end for good.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::plan::types::Domain;
use crate::plan::values::Name;
use crate::recover::carry;
use crate::recover::commands::wanted;
use crate::recover::disk::Disk;
use crate::recover::elsewhere::nothing;
use crate::recover::guard;
use crate::recover::journal::{Journal, Step};
use crate::recover::machine::{BY_HAND, Recoverer};
use crate::recover::newcomers;
use crate::recover::preview::Refusal;
use crate::recover::record::{RecoveryOutcome, RecoveryRecord, advice};
use crate::recover::steps::make_beside;
use crate::recover::swap;
use crate::recover::targets::{Identity, Target};
use crate::run::lock::Lock;
use crate::run::process::without_output;

impl Recoverer<'_> {
    /// Puts back what was there, from wherever the recovery is. Can be done again where it was killed.
    pub(super) fn back(
        &self,
        domain: &Domain,
        journal: &mut Journal,
        record: &mut RecoveryRecord,
    ) -> Result<(), String> {
        if let Err(error) = self.note(journal) {
            if journal.has_swapped() {
                // What is on disk says that it goes forward: after a kill it would be gone on with in the middle of the way back.
                return Err(format!(
                    "{error}; nothing was put back, so that it does not become a mixture. Make room in {}, then `strongroom recover --rollback {}`",
                    self.state.folder().display(),
                    journal.domain
                ));
            }
            record.warn(error);
        }
        let (recover, id) = (wanted(domain), journal.id.clone());
        if journal.has_swapped() {
            // What runs still would have its files exchanged below it.
            self.commands(domain, &id, &recover.stop, false).map_err(|error| {
                format!(
                    "nothing was put back, because `stop` failed: it has to end well, also where nothing runs; then `strongroom recover --rollback {}`: {error}",
                    domain.name
                )
            })?;
            guard::mounted_in(self.disk, journal)?;
            self.find_newcomers(domain, journal)?;
            self.swap_streams_back(domain, journal)?;
            self.targets_back(journal).map_err(|error| error.to_string())?;
        }
        if journal.step >= Step::Stop
            && let Err(error) = self.commands(domain, &id, &recover.start, false)
        {
            let name = &domain.name;
            record.left.push(format!(
                "what was there before is in its place, and `start` failed ({}): start it, then `strongroom recover --commit {name}`",
                without_output(&error)
            ));
            record.warn(format!("`start`: {error}"));
        }
        journal.left.clone_from(&record.left);
        if !journal.keeps
            && let Some(foreign) = foreign(journal)
        {
            record.warn(format!(
                "{foreign} was not restored by this: it is kept until `strongroom recover --commit {}`",
                journal.domain
            ));
            journal.keeps = true;
        }
        if journal.keeps {
            journal.step = Step::Undone;
            journal.back = None;
            return self.note(journal);
        }
        self.drop_loads(domain, journal, false).into_iter().for_each(|remains| record.warn(remains));
        if let Err(error) = discard(self.disk, journal) {
            record.warn(error);
        }
        if !journal.left.is_empty() {
            // Nothing is kept, and it stays known what is left to do.
            journal.targets.clear();
            journal.loads.clear();
            (journal.step, journal.back, journal.keeps) = (Step::Undone, None, true);
            return self.note(journal);
        }
        self.state
            .forget_recovery(&domain.name)
            .map_err(|error| format!("the journal cannot be removed: {error}"))
    }

    /// What was made in mounted directories beside what was restored is kept with that.
    fn find_newcomers(&self, domain: &Domain, journal: &mut Journal) -> Result<(), String> {
        let mut appeared = newcomers::find(domain, journal).map_err(|error| error.to_string())?;
        if appeared.is_empty() {
            return Ok(());
        }
        for target in &mut appeared {
            make_beside(target).map_err(|error| error.to_string())?;
            target.identity = Some(Identity { old: None, new: None, born: None });
        }
        journal.targets.extend(appeared);
        self.note(journal)
    }

    fn targets_back(&self, journal: &Journal) -> io::Result<()> {
        let targets = &journal.targets;
        targets.iter().rev().try_for_each(|target| carry::backward(self.disk, target))?;
        // Files beside a database that is not in use any more go before the one that was comes back.
        targets.iter().try_for_each(|target| swap::clear(self.disk, target))?;
        self.all_backward(targets)?;
        for made in journal.made.iter().rev() {
            // What somebody has put something into stays.
            let _ = fs::remove_dir(made);
        }
        Ok(())
    }

    /// What cannot be put back holds up nothing else but the files that belong to it, and is tried again when the others are back.
    fn all_backward(&self, targets: &[Target]) -> io::Result<()> {
        let mut open: Vec<&Target> = targets.iter().rev().collect();
        while !open.is_empty() {
            let (mut first, mut failed): (_, Vec<&Target>) = (None, Vec::new());
            for target in &open {
                if failed.iter().any(|database| target.belongs_to(database)) {
                    failed.push(target);
                } else if let Err(error) = swap::backward(self.disk, target) {
                    first.get_or_insert(error);
                    failed.push(target);
                }
            }
            if let (Some(error), true) = (first, failed.len() == open.len()) {
                return Err(error);
            }
            open = failed;
        }
        Ok(())
    }

    /// Removes what an earlier recovery of a domain has left that was undone.
    pub(super) fn sweep(&self, domain: &Name) -> Result<(), Refusal> {
        let journal = self.state.recovery(domain).map_err(|error| self.unwritable(&error))?;
        let (Some(mut journal), Some(found)) = (journal, self.plan.domain(domain.as_str())) else {
            return Ok(());
        };
        if !journal.is_leftover() {
            return Ok(());
        }
        match self.remove(found, &mut journal) {
            Ok(_) => Ok(()),
            Err(message) => {
                Err(Refusal::failed("io", message, "`strongroom recover --commit` tries it again".into()))
            }
        }
    }

    /// Removes what is kept. Says what may be there still.
    fn remove(&self, domain: &Domain, journal: &mut Journal) -> Result<Vec<String>, String> {
        let besides = journal.targets.iter().map(|target| &*target.beside);
        guard::mounted(self.disk, besides.chain([&*journal.scratch]))?;
        journal.step = Step::Removing;
        self.note(journal)?;
        // Undone, it is what was restored that is kept.
        let remain = self.drop_loads(domain, journal, !journal.keeps);
        for target in &journal.targets {
            remove_tree(self.disk, &target.beside)
                .map_err(|error| format!("{} cannot be removed: {error}", target.beside.display()))?;
        }
        remove_tree(self.disk, &journal.scratch)
            .map_err(|error| format!("{} cannot be removed: {error}", journal.scratch.display()))?;
        self.state
            .forget_recovery(&domain.name)
            .map_err(|error| format!("the journal cannot be removed: {error}"))?;
        Ok(remain)
    }

    /// Recoveries of these domains, or of those of the last recovery, as far as they are as it takes.
    fn chosen(
        &self,
        names: &[String],
        what: &str,
        is_meant: &dyn Fn(&Journal) -> bool,
    ) -> Result<Vec<Journal>, Refusal> {
        if let Some(unknown) = names.iter().find(|name| self.plan.domain(name).is_none()) {
            let there_are: Vec<_> = self.plan.domains.iter().map(|domain| domain.name.as_str()).collect();
            let hint = format!("it has: {}", there_are.join(", "));
            return Err(Refusal::usage(format!("the plan has no domain {unknown:?}"), hint));
        }
        let mut all = self.state.recoveries(self.plan).map_err(|error| self.unwritable(&error))?;
        all.retain(|journal| is_meant(journal));
        if names.is_empty() {
            let last = all.last().map(|journal| journal.id.clone());
            all.retain(|journal| Some(&journal.id) == last.as_ref());
        } else if let Some(absent) =
            names.iter().find(|name| !all.iter().any(|journal| journal.domain.as_str() == *name))
        {
            let message = format!("of {absent} there is nothing to {what}");
            return Err(self.nothing(message, std::slice::from_ref(absent)));
        } else {
            all.retain(|journal| names.iter().any(|name| name == journal.domain.as_str()));
        }
        if all.is_empty() {
            let all: Vec<_> = self.plan.domains.iter().map(|domain| domain.name.to_string()).collect();
            return Err(self.nothing(format!("there is nothing to {what}"), &all));
        }
        Ok(all)
    }

    /// The same, taken for this process. Until they were, another one may have gone on with them: how far they are is read again.
    pub(super) fn taken(
        &self,
        names: &[String],
        what: &str,
        is_meant: &dyn Fn(&Journal) -> bool,
    ) -> Result<(Vec<Lock>, Vec<Journal>), Refusal> {
        let before = self.chosen(names, what, is_meant)?;
        let locks = self.lock(before.iter().map(|journal| &journal.domain))?;
        let mut journals = Vec::new();
        for Journal { id, domain, .. } in &before {
            let now = self.state.recovery(domain).map_err(|error| self.unwritable(&error))?;
            match now.filter(|now| now.id == *id && is_meant(now)) {
                Some(now) => journals.push(now),
                None if names.is_empty() => {}
                None => return Err(nothing(&format!("of {domain} there is nothing to {what} any more"))),
            }
        }
        match journals.is_empty() {
            true => Err(nothing(&format!("there is nothing to {what} any more"))),
            false => Ok((locks, journals)),
        }
    }

    /// What a killed recovery left at work is ended.
    fn take_over(&self, journal: &mut Journal) {
        self.processes.end_marked(&journal.mark);
        self.processes.mark().clone_into(&mut journal.mark);
    }

    /// Goes on with a recovery that was killed: forward, or back if it was on its way back.
    ///
    /// # Errors
    /// [`Refusal`] where there is none, or it is at work.
    pub fn resume(&self, names: &[String]) -> Result<Vec<RecoveryRecord>, Refusal> {
        let (_locks, journals) = self.taken(names, "resume", &Journal::is_unfinished)?;
        let mut records = Vec::new();
        for mut journal in journals {
            self.take_over(&mut journal);
            // Since the kill, what was swapped may have been used.
            journal.keeps |= journal.has_swapped();
            if matches!(journal.step, Step::Swap | Step::Start | Step::Health) && journal.back.is_none() {
                // Since the kill, something may have started what uses the data, and what was swapped may have been swapped back.
                journal.step = Step::Stop;
            }
            records.push(self.advance(journal));
        }
        Ok(records)
    }

    /// Puts back what was there before a recovery, the last domain first. What was restored is kept.
    ///
    /// # Errors
    /// [`Refusal`] where there is nothing to put back, or it cannot be.
    pub fn rollback(&self, names: &[String]) -> Result<Vec<RecoveryRecord>, Refusal> {
        let (_locks, mut journals) =
            self.taken(names, "roll back", &|journal: &Journal| !journal.is_leftover())?;
        self.refuse_nested(&journals)?;
        journals.reverse();
        let mut records = Vec::new();
        for mut journal in journals {
            let is_unfinished = journal.is_unfinished();
            if is_unfinished {
                self.take_over(&mut journal);
            }
            journal.keeps |= !is_unfinished || journal.has_swapped();
            journal.back = Some(BY_HAND.into());
            records.push(self.advance(journal));
        }
        Ok(records)
    }

    /// A recovery inside of what another one replaced later cannot be undone by itself.
    fn refuse_nested(&self, journals: &[Journal]) -> Result<(), Refusal> {
        let all = self.state.recoveries(self.plan).map_err(|error| self.unwritable(&error))?;
        for journal in journals {
            let later = all.iter().skip_while(|other| other.domain != journal.domain).skip(1);
            let later = later.filter(|other| {
                !other.is_leftover() && !journals.iter().any(|one| one.domain == other.domain)
            });
            for other in later {
                let touches = |one: &Path, two: &Path| one.starts_with(two) || two.starts_with(one);
                let is_nested = journal
                    .targets
                    .iter()
                    .any(|one| other.targets.iter().any(|two| touches(&one.place, &two.place)));
                if is_nested {
                    let is_apart = Self::is_apart(other, journal);
                    let (name, other) = (&journal.domain, &other.domain);
                    let message = format!(
                        "{name} cannot be rolled back before {other}, which was recovered later at the same place"
                    );
                    let commit =
                        if is_apart { format!(", or --commit {other} first") } else { String::new() };
                    let hint = format!("`strongroom recover --rollback {other} {name}`{commit}");
                    return Err(Refusal::failed("nested", message, hint));
                }
            }
        }
        Ok(())
    }

    /// Who means all of it does not mean a part of it; and what the rest of a recovery waits for is to be known of until it is done.
    fn refuse_unfinished(&self, names: &[String]) -> Result<(), Refusal> {
        let all = self.state.recoveries(self.plan).map_err(|error| self.unwritable(&error))?;
        let is_named = |journal: &Journal| names.iter().any(|name| name == journal.domain.as_str());
        let is_of_named = |journal: &Journal| {
            all.iter()
                .any(|other| other.id == journal.id && other.domain != journal.domain && is_named(other))
        };
        let is_in_the_way =
            |journal: &&Journal| journal.is_unfinished() && (names.is_empty() || is_of_named(journal));
        match all.iter().find(is_in_the_way) {
            None => Ok(()),
            Some(journal) => Err(Refusal {
                code: "unfinished".into(),
                message: advice(journal).unwrap_or_default(),
                hint: None,
            }),
        }
    }

    /// Removes what is kept of recoveries: they cannot be undone any more.
    ///
    /// # Errors
    /// [`Refusal`] where nothing is kept, or a recovery is not at its end.
    pub fn commit(&self, names: &[String]) -> Result<Vec<RecoveryRecord>, Refusal> {
        self.refuse_unfinished(names)?;
        let (_locks, journals) =
            self.taken(names, "commit", &|journal: &Journal| !journal.is_unfinished())?;
        self.refuse_unfinished(names)?;
        self.refuse_removal(&journals)?;
        let mut records = Vec::new();
        for mut journal in journals {
            let mut record = RecoveryRecord::of(&journal, None);
            record.steps.clear();
            let removed = match self.plan.domain(journal.domain.as_str()) {
                Some(domain) => self.remove(domain, &mut journal),
                None => Err("the plan does not have the domain any more".into()),
            };
            match removed {
                Ok(remain) => {
                    record.outcome = RecoveryOutcome::Committed;
                    record.warnings = remain;
                }
                Err(error) => {
                    record.outcome = RecoveryOutcome::Failed;
                    record.cause = Some(crate::recover::Cause::Failed);
                    record.reason = Some(error);
                }
            }
            self.conclude(&mut record);
            records.push(record);
        }
        Ok(records)
    }
}

/// Something in the place of what was restored that somebody else has put there, or that cannot be looked at.
fn foreign(journal: &Journal) -> Option<String> {
    let mut targets = journal.targets.iter();
    let found = targets.find(|target| swap::has_foreign(target).unwrap_or(true))?;
    Some(found.staged.display().to_string())
}

/// Removes what was restored and is not wanted. What was there before is never removed by this.
fn discard(disk: &dyn Disk, journal: &Journal) -> Result<(), String> {
    for target in &journal.targets {
        if fs::symlink_metadata(&target.aside).is_ok() {
            return Err(format!("{} is not in its place, and was left where it is", target.aside.display()));
        }
    }
    let unremoved = |path: &Path, error: io::Error| format!("{} cannot be removed: {error}", path.display());
    for target in &journal.targets {
        remove_tree(disk, &target.beside).map_err(|error| unremoved(&target.beside, error))?;
    }
    remove_tree(disk, &journal.scratch).map_err(|error| unremoved(&journal.scratch, error))?;
    Ok(())
}

/// Removes a directory with all that is in it, also what its owner has closed to himself; not what is mounted in it.
pub(super) fn remove_tree(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    guard::mounted(disk, [path].into_iter()).map_err(io::Error::other)?;
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        result => result,
    }
}

fn open_up(path: &Path) -> io::Result<()> {
    let mut open = vec![path.to_owned()];
    while let Some(folder) = open.pop() {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(())
}
