//! What is known of drills and recoveries: by the logs of a plan's repositories, and by what this host remembers.

use std::path::Path;

use strongroom::format::config::Config;
use strongroom::log::{LogError, check_end, read_all, read_since};
use strongroom::repo::Repository;
use strongroom_ops::drill::DrillRecord;
use strongroom_ops::drill::place::Place;
use strongroom_ops::noted::{self, Noted, Remembered};
use strongroom_ops::plan::values::Name;
use strongroom_ops::recover::RecoveryRecord;
use strongroom_ops::recover::preview::Measurements;
use strongroom_ops::run::state::State;

use crate::context::{Context, environment};
use crate::failure::Failure;
use crate::vault::Repositories;

/// The folder of the state directory with what logs say.
pub const FOLDER: &str = "noted";

/// What the log of a repository says to a host. Of what is remembered in this file only the rest is read.
pub fn noted(repository: &Repository, host: &str, file: Option<&Path>) -> Result<Noted, LogError> {
    let machine = environment().host;
    let known = file.and_then(|file| Remembered::load(file, host, &machine));
    let read_on = known.map(|known| read_on(repository, known)).transpose()?.flatten();
    let (found, is_news) = match read_on {
        Some(found) => found,
        None => (read_whole(repository, host, &machine)?, true),
    };
    // What cannot be remembered is read again.
    let _ = file.filter(|_| is_news).map(|file| found.keep(file));
    Ok(found.noted)
}

/// What is remembered with what was said since, and whether anything was; none where only the whole log tells.
fn read_on(repository: &Repository, known: Remembered) -> Result<Option<(Remembered, bool)>, LogError> {
    let (backend, end) = (&**repository.backend(), repository.fold());
    let commits = read_since(backend, repository.keys(), &repository.id(), &end, (known.seq, known.head))?;
    let Some(commits) = commits else { return Ok(None) };
    check_end(backend, repository.keys(), &repository.id(), &end)?;
    let mut noted = known.noted;
    commits.iter().for_each(|commit| noted.add(commit));
    Ok(Some((Remembered { seq: end.seq(), head: end.head(), noted }, !commits.is_empty())))
}

fn read_whole(repository: &Repository, host: &str, machine: &str) -> Result<Remembered, LogError> {
    let mut noted = Noted::new(host, machine);
    let config = Config::hash(repository.config_bytes());
    let end = read_all(&**repository.backend(), repository.keys(), &repository.id(), config, &mut |entry| {
        if let Ok(entry) = entry {
            noted.add(&entry.commit);
        }
    })?;
    Ok(Remembered { seq: end.seq(), head: end.head(), noted })
}

/// Drills and recoveries, and which repositories may tell of more.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Drills, each once.
    pub drills: Vec<DrillRecord>,
    /// Recoveries, each once.
    pub recoveries: Vec<RecoveryRecord>,
    /// Repositories whose logs could not be read, and why.
    pub unasked: Vec<(Name, String)>,
}

impl Evidence {
    /// Asks these repositories, and this host if it remembers anything.
    ///
    /// # Errors
    /// Where what this host remembers cannot be read. A repository that cannot be asked takes nothing away.
    pub fn gather<'n>(
        repos: impl Iterator<Item = &'n Name>,
        repositories: &Repositories<'_>,
        state: Option<&State>,
    ) -> Result<Self, Failure> {
        let mut found = Self::default();
        let (mut drills, mut recoveries) = (Vec::new(), Vec::new());
        for repo in repos {
            match repositories.noted(repo) {
                Ok(noted) => {
                    drills.push(noted.drills(repo));
                    recoveries.push(noted.recoveries(repo));
                }
                Err(error) => found.unasked.push((repo.clone(), error.message)),
            }
        }
        let unreadable =
            |what: &'static str| move |error| Failure::io(format_args!("cannot read how {what}"), &error);
        let local = state.map(|state| Place::new(state.folder()).records()).transpose();
        let local = local.map_err(unreadable("drills ended"))?.unwrap_or_default();
        found.drills = noted::drills(local, drills);
        let local = state.map(State::recovery_records).transpose();
        let local = local.map_err(unreadable("recoveries ended"))?.unwrap_or_default();
        found.recoveries = noted::recoveries(local, recoveries);
        Ok(found)
    }

    /// What was measured.
    pub fn measurements(&self) -> Measurements<'_> {
        Measurements { drills: &self.drills, recoveries: &self.recoveries }
    }

    /// The repositories that could not be asked.
    pub fn unasked(&self) -> Vec<Name> {
        self.unasked.iter().map(|(repo, _)| repo.clone()).collect()
    }

    /// Says what may be missing.
    pub fn warn(&self, context: &Context) {
        for (repo, error) in &self.unasked {
            context.output.warn(&format!(
                "warning: what the log of {repo} says of drills and recoveries is not known: {error}"
            ));
        }
    }
}
