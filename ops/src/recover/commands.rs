//! Commands of a recovery: services stopped, started and asked; streams loaded and swapped.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::drill::probe;
use crate::drill::steps::{PAUSE, READY};
use crate::plan::effective::RECOVER_TIMEOUT;
use crate::plan::types::{Domain, Ready, Recover, Stream, StreamRecover};
use crate::plan::values::{Argv, Lapse, Name};
use crate::recover::journal::{Journal, Load, Progress};
use crate::recover::machine::{Recoverer, Stop};
use crate::run::process::{Ended, Order, ProcessError};
use crate::run::stream::timeout;

/// Longer than anything takes. Whoever recovers waits for the end of a load: what ends it in the middle has to be asked for.
const NO_LIMIT: Lapse = Lapse::seconds(u64::MAX);

/// What a recovery is to do beside putting data back.
pub(super) fn wanted(domain: &Domain) -> Recover {
    domain.recover.clone().unwrap_or_default()
}

fn stream<'d>(domain: &'d Domain, load: &Load) -> Result<&'d Stream, String> {
    let found = domain.stream.iter().find(|stream| stream.name == load.stream);
    found.ok_or_else(|| format!("the plan has no stream {} any more", load.stream))
}

fn filled(argv: &Argv, id: &str, load: &Load) -> Argv {
    argv.with("target", &load.target).with("old", &load.old).with("id", id)
}

/// What `swapped` prints.
fn truth(output: &[u8]) -> Option<bool> {
    match String::from_utf8_lossy(output).trim().to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "yes" => Some(true),
        "0" | "f" | "false" | "no" => Some(false),
        _ => None,
    }
}

impl Recoverer<'_> {
    /// What all commands of a recovery have in their environment.
    pub(super) fn env(&self, domain: &Name, id: &str) -> Vec<(String, String)> {
        vec![
            ("STRONGROOM_DOMAIN".into(), domain.to_string()),
            ("STRONGROOM_HOST".into(), self.host.clone()),
            ("STRONGROOM_RECOVERY".into(), id.to_owned()),
        ]
    }

    fn order(
        &self,
        domain: &Domain,
        id: &str,
        argv: &Argv,
        heeds_cancel: bool,
    ) -> Result<Ended, ProcessError> {
        let env = self.env(&domain.name, id);
        let timeout = timeout(wanted(domain).timeout, RECOVER_TIMEOUT);
        self.processes.run(&Order { argv, env: &env, timeout, heeds_cancel })
    }

    /// Runs commands, up to the first that fails.
    pub(super) fn commands(
        &self,
        domain: &Domain,
        id: &str,
        list: &[Argv],
        heeds_cancel: bool,
    ) -> Result<(), String> {
        list.iter().try_for_each(|argv| {
            self.order(domain, id, argv, heeds_cancel).map(|_| ()).map_err(|error| error.to_string())
        })
    }

    /// Waits until the application is ready, and asks how it is.
    pub(super) fn health(&self, domain: &Domain, id: &str) -> Result<(), Stop> {
        let recover = wanted(domain);
        if let Some(ready) = &recover.ready {
            self.wait(domain, id, ready)?;
        }
        let unwell = |error| Stop::failed(format!("the health check: {error}"));
        self.commands(domain, id, &recover.health, true).map_err(unwell)
    }

    fn wait(&self, domain: &Domain, id: &str, ready: &Ready) -> Result<(), Stop> {
        let limit = ready.timeout.map_or(READY, |limit| limit.duration());
        let until = (self.uptime)() + limit;
        loop {
            if (self.is_cancelled)() {
                return Err(Stop::cancelled());
            }
            let left = until.saturating_sub((self.uptime)()).max(Duration::from_secs(1));
            let not_yet = match self.ask(domain, id, ready, left) {
                Ok(()) => return Ok(()),
                Err(not_yet) => not_yet,
            };
            if (self.uptime)() >= until {
                return Err(Stop::failed(format!("it is not ready after {} s: {not_yet}", limit.as_secs())));
            }
            (self.pause)(PAUSE);
        }
    }

    fn ask(&self, domain: &Domain, id: &str, ready: &Ready, left: Duration) -> Result<(), String> {
        if let Some(url) = &ready.http {
            return probe::ready(url, self.get);
        }
        let Some(argv) = &ready.command else { return Ok(()) };
        let env = self.env(&domain.name, id);
        let order = Order { argv, env: &env, timeout: left, heeds_cancel: true };
        self.processes.run(&order).map(|_| ()).map_err(|error| error.to_string())
    }

    /// Loads all streams under their new names.
    pub(super) fn load(&self, domain: &Domain, journal: &mut Journal) -> Result<(), Stop> {
        let (id, scratch) = (&journal.id.clone(), &journal.scratch.clone());
        for number in 0..journal.loads.len() {
            let load = journal.loads[number].clone();
            if load.loaded == Progress::Done {
                continue;
            }
            let stream = stream(domain, &load).map_err(Stop::failed)?;
            let recover = stream.recover.clone().unwrap_or_default();
            // A load that was killed: what there is of it is not known, and goes.
            if let Some(argv) = recover.drop.as_ref().filter(|_| load.is_ours(id, recover.create.is_some())) {
                let _absent = self.order(domain, id, &filled(argv, id, &load), true);
            }
            let failed = |reason: String| Stop::failed(format!("loading {}: {reason}", load.stream));
            let mut note = |progress| {
                journal.loads[number].loaded = progress;
                self.save(journal)
            };
            note(Progress::Begun)?;
            if let Some(argv) = &recover.create {
                let created = self.order(domain, id, &filled(argv, id, &load), true);
                if let Err(error) = created {
                    // What has the name already is somebody else's.
                    note(Progress::No)?;
                    return Err(failed(error.to_string()));
                }
            }
            if recover.create.is_some() {
                note(Progress::Made)?;
            }
            self.load_one(domain, id, scratch, stream, &load).map_err(failed)?;
            note(Progress::Done)?;
        }
        Ok(())
    }

    /// Gives a stream to the command that restores it.
    fn load_one(
        &self,
        domain: &Domain,
        id: &str,
        scratch: &Path,
        stream: &Stream,
        load: &Load,
    ) -> Result<(), String> {
        // It was looked at when the recovery was planned; the plan may be another one since.
        let restore = stream.restore_into(&load.target)?.ok_or("the plan does not say how any more")?;
        let argv = filled(&restore, id, load);
        let env = self.env(&domain.name, id);
        let mut file = File::open(scratch.join(&stream.name)).map_err(|error| error.to_string())?;
        let timeout = stream.restore_timeout.unwrap_or(NO_LIMIT).duration();
        let order = Order { argv: &argv, env: &env, timeout, heeds_cancel: true };
        let mut sink = self.processes.sink(&order).map_err(|error| error.to_string())?;
        let copied = io::copy(&mut file, &mut sink);
        // A command that takes no more has a reason, which says more than a broken pipe.
        match (copied, sink.finish()) {
            (_, Err(error)) => Err(error.to_string()),
            (Err(error), Ok(())) => Err(error.to_string()),
            (Ok(_), Ok(())) => Ok(()),
        }
    }

    fn is_swapped(
        &self,
        domain: &Domain,
        id: &str,
        recover: &StreamRecover,
        load: &Load,
    ) -> Result<bool, String> {
        let argv = recover.swapped.as_ref().ok_or("the plan has no `swapped` for it any more")?;
        let ended =
            self.order(domain, id, &filled(argv, id, load), false).map_err(|error| error.to_string())?;
        truth(&ended.stdout).ok_or_else(|| {
            let said = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
            format!("`swapped` printed {said:?}, and has to print 1 or 0")
        })
    }

    /// Puts the streams that were loaded in the place of what is in use.
    pub(super) fn swap_streams(&self, domain: &Domain, journal: &mut Journal) -> Result<(), Stop> {
        for number in 0..journal.loads.len() {
            let load = journal.loads[number].clone();
            let stream = stream(domain, &load).map_err(Stop::failed)?;
            let recover = stream.recover.clone().unwrap_or_default();
            let Some(argv) = recover.swap.as_ref() else { continue };
            let failed = |reason: String| Stop::failed(format!("swapping {}: {reason}", load.stream));
            let is_swapped = self.is_swapped(domain, &journal.id, &recover, &load).map_err(failed)?;
            // What was noted may have been undone since, so it is asked for again.
            if !(is_swapped && load.swapped != Progress::No) {
                if is_swapped {
                    let message = format!("there is something of the name {} already", load.old);
                    return Err(failed(message));
                }
                journal.loads[number].swapped = Progress::Begun;
                self.save(journal)?;
                let swapped = self.order(domain, &journal.id, &filled(argv, &journal.id, &load), true);
                swapped.map_err(|error| failed(error.to_string()))?;
                if !self.is_swapped(domain, &journal.id, &recover, &load).map_err(failed)? {
                    return Err(failed(
                        "`swap` ended well, and `swapped` says that nothing was swapped".into(),
                    ));
                }
            }
            journal.loads[number].swapped = Progress::Done;
            self.save(journal)?;
        }
        Ok(())
    }

    /// Puts back what was in use before, the last stream first.
    pub(super) fn swap_streams_back(&self, domain: &Domain, journal: &mut Journal) -> Result<(), String> {
        for number in (0..journal.loads.len()).rev() {
            let load = journal.loads[number].clone();
            if load.swapped == Progress::No {
                continue;
            }
            let failed = |reason: String| format!("{} cannot be swapped back: {reason}", load.stream);
            let stream = stream(domain, &load).map_err(failed)?;
            let recover = stream.recover.clone().unwrap_or_default();
            if self.is_swapped(domain, &journal.id, &recover, &load).map_err(failed)? {
                let argv =
                    recover.undo.as_ref().ok_or_else(|| failed("the plan has no `undo` any more".into()))?;
                let undone = self.order(domain, &journal.id, &filled(argv, &journal.id, &load), false);
                undone.map_err(|error| failed(error.to_string()))?;
                if self.is_swapped(domain, &journal.id, &recover, &load).map_err(failed)? {
                    return Err(failed(
                        "`undo` ended well, and `swapped` says that nothing was undone".into(),
                    ));
                }
            }
            journal.loads[number].swapped = Progress::No;
            self.note(journal)?;
        }
        Ok(())
    }

    /// Removes what a stream was loaded under, or what was in use before it; says what may be there still.
    pub(super) fn drop_loads(&self, domain: &Domain, journal: &Journal, are_old: bool) -> Vec<String> {
        let mut remain = Vec::new();
        for load in &journal.loads {
            let recover = stream(domain, load).ok().and_then(|stream| stream.recover.as_ref());
            let has_create = recover.is_some_and(|recover| recover.create.is_some());
            let is_there = match are_old {
                true => load.swapped == Progress::Done,
                false => load.is_ours(&journal.id, has_create),
            };
            if !is_there {
                continue;
            }
            let name = if are_old { &load.old } else { &load.target };
            let argv = recover.and_then(|recover| recover.drop.as_ref());
            let dropped = match argv {
                None => Err("the plan does not say how it is removed".to_owned()),
                Some(argv) => {
                    let argv = argv.with("target", name).with("old", &load.old).with("id", &journal.id);
                    self.order(domain, &journal.id, &argv, false)
                        .map(|_| ())
                        .map_err(|error| error.to_string())
                }
            };
            if let Err(reason) = dropped {
                remain.push(format!("{name} of the stream {} may be there still: {reason}", load.stream));
            }
        }
        remain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_answer_counts() {
        for (said, is_swapped) in [
            ("1\n", Some(true)),
            (" T ", Some(true)),
            ("0", Some(false)),
            ("no\n", Some(false)),
            ("", None),
            ("2", None),
        ] {
            assert_eq!(truth(said.as_bytes()), is_swapped, "{said:?}");
        }
    }
}
