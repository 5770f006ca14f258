//! Telling people and monitors: webhooks and commands are given JSON, heartbeats are called.
//!
//! One message tells of all that one run has to tell of one kind. That somebody cannot be told changes nothing else.
//!
//! - [`http`]: calling addresses
//! - `memory`: what was told, so that nobody is told the same again and again

pub mod http;
mod memory;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::{Timestamp, Zoned};
use serde_json::json;

use crate::drill::DrillRecord;
use crate::plan::Plan;
use crate::plan::types::{Event, Notify};
use crate::plan::values::Argv;
use crate::recover::RecoveryRecord;
use crate::run::process::{Order, Processes, without_output};
use crate::run::state::State;
use crate::run::{DomainReport, Outcome};
use crate::status::{CopyStatus, DomainStatus, Health};
use crate::verify::demands;
use http::Http;
use memory::Memory;

/// Time that a command may take which tells somebody.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// How often an address is tried.
const TRIES: usize = 2;
/// Most items of one message; the others are counted.
const ITEMS_MAX: usize = 50;
/// How long before an exception expires somebody is told.
const EXPIRES_SOON_DAYS: i32 = 14;

/// Something to tell of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// A domain, a repository, an exception.
    pub subject: String,
    /// What there is to say.
    pub message: String,
}

impl Item {
    /// What a command said is nobody else's business.
    pub fn new(subject: impl Into<String>, message: &str) -> Self {
        Self { subject: subject.into(), message: without_output(message) }
    }
}

/// Tells whoever the plan names.
pub struct Notifier<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The host.
    pub host: String,
    /// Calls addresses.
    pub http: &'a dyn Http,
    /// Starts commands.
    pub processes: Arc<dyn Processes>,
    /// The value of an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// What this host remembers.
    pub state: &'a State,
    /// The time.
    pub now: &'a dyn Fn() -> Timestamp,
}

enum Channel<'p> {
    Webhook(&'p str),
    Heartbeat(&'p str),
    Command(&'p Argv),
}

impl<'p> Channel<'p> {
    fn of(notify: &'p Notify) -> Option<Self> {
        let webhook = notify.webhook_env.as_ref().map(|name| Self::Webhook(name.as_str()));
        let heartbeat = notify.heartbeat_env.as_ref().map(|name| Self::Heartbeat(name.as_str()));
        webhook.or(heartbeat).or(notify.command.as_ref().map(Self::Command))
    }

    const fn is_heartbeat(&self) -> bool {
        matches!(self, Self::Heartbeat(_))
    }

    /// What it is called in messages and in the memory.
    fn name(&self) -> String {
        match self {
            Self::Webhook(variable) | Self::Heartbeat(variable) => (*variable).to_owned(),
            Self::Command(argv) => argv.quoted(),
        }
    }
}

impl Notifier<'_> {
    /// Tells that a run begins. Where nothing is to be done, heartbeats only.
    pub fn run_begins(&self, domains: &[&str]) -> Vec<String> {
        let items: Vec<_> = domains.iter().map(|domain| Item::new(*domain, "is to be backed up")).collect();
        self.tell(Event::Start, &items)
    }

    /// Tells how a run went.
    pub fn run_ended(&self, reports: &[DomainReport]) -> Vec<String> {
        let failed = reports.iter().filter(|report| is_bad(report));
        let failed: Vec<_> = failed
            .map(|report| {
                let why = report.message.as_ref().or(report.warnings.first());
                Item::new(report.domain.as_str(), why.map_or("failed", String::as_str))
            })
            .collect();
        let ended = |outcome: Outcome| {
            let those = reports.iter().filter(|report| !is_bad(report) && report.outcome == outcome);
            let items = those.map(|report| {
                let why = report.why().map_or(String::new(), |why| format!(": {why}"));
                Item::new(report.domain.as_str(), &format!("{}{why}", report.outcome.name()))
            });
            items.collect::<Vec<_>>()
        };
        let (lacking, good) = (ended(Outcome::Partial), ended(Outcome::Ok));
        let mut warnings = self.changed(&failed, &good);
        warnings.extend(self.lack(&lacking));
        let people = |channel: &Channel<'_>| !channel.is_heartbeat();
        warnings.extend(self.tell_where(Event::Partial, &lacking, &people));
        if !failed.is_empty() {
            return warnings;
        }
        warnings.extend(self.tell_where(Event::Success, &good, &people));
        // To whoever watches a heartbeat, a success would say that all is well.
        let is_deferred = reports.iter().any(|report| report.outcome == Outcome::Deferred);
        let beat = match (self.is_something_open(), self.is_something_lacking()) {
            (true, _) => Event::Failure,
            (false, true) => Event::Partial,
            // The run that has the domain says how it ended.
            (false, false) if is_deferred => return warnings,
            (false, false) => Event::Success,
        };
        warnings.extend(self.tell_where(beat, &[], &|channel| channel.is_heartbeat()));
        warnings
    }

    /// Takes note of what lacks something.
    fn lack(&self, items: &[Item]) -> Option<String> {
        if items.is_empty() {
            return None;
        }
        let now = (self.now)();
        self.remember(|memory| items.iter().for_each(|item| memory.lacks(&item.subject, now))).err()
    }

    /// Changes what is remembered.
    fn remember(&self, change: impl FnOnce(&mut Memory)) -> Result<(), String> {
        Memory::change(self.state, (self.now)(), change)
            .map_err(|error| format!("notify: cannot write to the state directory: {error}"))
    }

    /// Whether a domain of the plan lacked something when it was run last.
    fn is_something_lacking(&self) -> bool {
        Memory::load(self.state).lacking().any(|subject| self.plan.domain(subject).is_some())
    }

    /// Whether those that are named there want to know of such events. A plan that does not say who hears of runs that lack something
    /// has it told to those who hear of failures.
    fn wants(&self, notify: &Notify, event: Event) -> bool {
        let is_said = || self.plan.notify.iter().any(|notify| notify.on.contains(&Event::Partial));
        notify.on.contains(&event)
            || (event == Event::Partial && notify.on.contains(&Event::Failure) && !is_said())
    }

    /// Whether something of the plan that failed in an earlier run is not well yet, or a snapshot unlike those before was not looked at.
    fn is_something_open(&self) -> bool {
        let memory = Memory::load(self.state);
        let demanded = demands(self.plan);
        let is_verified = |subject: &str| demanded.keys().any(|repo| subject == format!("verify {repo}"));
        memory.failing().any(|subject| self.plan.domain(subject).is_some() || is_verified(subject))
            || self.plan.domains.iter().any(|domain| {
                // What cannot be read may be such a one.
                self.state.guard(&domain.name).map_or(true, |guard| !guard.reasons.is_empty())
            })
    }

    /// Tells how drills ended; self-tests are nobody's business.
    pub fn drills_ended(&self, records: &[DrillRecord]) -> Vec<String> {
        let items = records.iter().filter(|record| !record.self_test).map(|record| {
            let why = record.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
            Item::new(record.drill.as_str(), &format!("{}{why}", record.outcome.name()))
        });
        let items: Vec<_> = items.collect();
        if items.is_empty() { Vec::new() } else { self.tell(Event::Drill, &items) }
    }

    /// Tells how recoveries ended.
    pub fn recoveries_ended(&self, records: &[RecoveryRecord]) -> Vec<String> {
        let items = records.iter().map(|record| {
            let why = record.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
            let message = format!("{} from {}{why}", record.outcome.name(), record.repository);
            Item::new(record.domain.as_str(), &message)
        });
        let items: Vec<_> = items.collect();
        if items.is_empty() { Vec::new() } else { self.tell(Event::Recovery, &items) }
    }

    /// Tells of what failed, and of what is well again.
    pub fn changed(&self, failed: &[Item], good: &[Item]) -> Vec<String> {
        let now = (self.now)();
        let mut recovered = Vec::new();
        let remembered = self.remember(|memory| {
            failed.iter().for_each(|item| memory.fails(&item.subject, now));
            good.iter().for_each(|item| memory.is_well(&item.subject, now));
            // Also what somebody could not be told of the last time.
            let subjects = memory.recovered().into_iter();
            recovered = subjects.map(|subject| Item::new(subject, "is well again")).collect();
        });
        let mut warnings: Vec<_> = remembered.err().into_iter().collect();
        for (event, items) in [(Event::Failure, failed), (Event::Recovered, recovered.as_slice())] {
            if !items.is_empty() {
                warnings.extend(self.tell(event, items));
            }
        }
        if !recovered.is_empty() {
            warnings.extend(self.settle(now));
        }
        warnings
    }

    /// Forgets of what is well again what everybody has been told.
    fn settle(&self, now: Timestamp) -> Option<String> {
        let wanting = self.plan.notify.iter().filter(|notify| notify.on.contains(&Event::Recovered));
        let names: Vec<_> = wanting.filter_map(Channel::of).map(|channel| channel.name()).collect();
        self.remember(|memory| memory.settle(&names, now)).err()
    }

    /// Tells of missed recovery points, of repositories that cannot be asked for them, and of exceptions that expire soon.
    pub fn standing(&self, status: &[DomainStatus], today: &Zoned) -> Vec<String> {
        let late = status.iter().filter_map(|domain| {
            let is_late = |copy: &&CopyStatus| copy.health == Health::Critical && domain.rpo.is_some();
            let late = domain.copies.iter().find(is_late);
            let unknown = domain.copies.iter().find(|copy| copy.health == Health::Unknown);
            let copy = late.or(unknown)?;
            let reason = copy.reasons.first()?;
            Some(Item::new(domain.domain.as_str(), &format!("in {}: {reason}", copy.repo)))
        });
        let soon = self.plan.exceptions.iter().filter_map(|exception| {
            let days = today.date().until(exception.expires).ok()?.get_days();
            (0..=EXPIRES_SOON_DAYS).contains(&days).then(|| {
                let message = format!(
                    "the exception of the domain {} from {} expires on {}",
                    exception.domain,
                    exception.control.name(),
                    exception.expires
                );
                Item::new(exception.id.as_str(), &message)
            })
        });
        let (late, soon): (Vec<_>, Vec<_>) = (late.collect(), soon.collect());
        let mut warnings = Vec::new();
        for (event, items) in [(Event::Rpo, late), (Event::ExceptionExpiring, soon)] {
            if !items.is_empty() {
                warnings.extend(self.tell(event, &items));
            }
        }
        warnings
    }

    /// Tells everybody who wants to know of such events, and has not been told; returns whom it could not tell, and why. Of
    /// nothing, heartbeats only are told.
    pub fn tell(&self, event: Event, items: &[Item]) -> Vec<String> {
        self.tell_where(event, items, &|_| true)
    }

    fn tell_where(
        &self,
        event: Event,
        items: &[Item],
        is_meant: &dyn Fn(&Channel<'_>) -> bool,
    ) -> Vec<String> {
        let now = (self.now)();
        let memory = Memory::load(self.state);
        let (mut told, mut warnings) = (Vec::<(String, String)>::new(), Vec::new());
        for notify in self.plan.notify.iter().filter(|notify| self.wants(notify, event)) {
            let Some(channel) = Channel::of(notify).filter(is_meant) else { continue };
            let name = channel.name();
            let is_heartbeat = channel.is_heartbeat();
            let is_told = |item: &Item| told.iter().any(|(to, of)| *to == name && *of == item.subject);
            let is_news = |item: &&Item| {
                is_heartbeat || (memory.is_news(&name, event, &item.subject, now) && !is_told(item))
            };
            let news: Vec<&Item> = items.iter().filter(is_news).collect();
            if news.is_empty() && !is_heartbeat {
                continue;
            }
            match self.deliver(&channel, event, &news) {
                Ok(()) => told.extend(news.iter().map(|item| (name.clone(), item.subject.clone()))),
                Err(error) => {
                    warnings.push(format!("notify: {name} was not told of {}: {error}", event.name()));
                }
            }
        }
        if !told.is_empty() {
            let remembered = self.remember(|memory| {
                told.iter().for_each(|(channel, subject)| memory.was_told(channel, event, subject, now));
            });
            warnings.extend(remembered.err());
        }
        warnings
    }

    /// Tells every channel that this is a test, whatever was told before; returns how each took it.
    pub fn test(&self) -> Vec<(String, Result<(), String>)> {
        let item = Item::new("test", "this is a test: nothing has happened");
        let channels = self.plan.notify.iter().filter_map(Channel::of);
        channels.map(|channel| (channel.name(), self.deliver(&channel, Event::Success, &[&item]))).collect()
    }

    fn deliver(&self, channel: &Channel<'_>, event: Event, items: &[&Item]) -> Result<(), String> {
        match channel {
            Channel::Webhook(variable) => {
                let address = self.address(variable)?;
                let body = self.body(event, items);
                again(|| self.http.post(&address, &body))
            }
            Channel::Heartbeat(variable) => {
                let address = called(&self.address(variable)?, event);
                again(|| self.http.get(&address))
            }
            Channel::Command(argv) => {
                let env = [("STRONGROOM_EVENT".to_owned(), event.name().to_owned())];
                let order = Order { argv, env: &env, timeout: COMMAND_TIMEOUT, heeds_cancel: false };
                let mut sink = self.processes.sink(&order).map_err(|error| error.to_string())?;
                sink.write_all(self.body(event, items).as_bytes()).map_err(|error| error.to_string())?;
                sink.finish().map_err(|error| error.to_string())
            }
        }
    }

    fn address(&self, variable: &str) -> Result<String, String> {
        let value = (self.variable)(variable).filter(|value| !value.trim().is_empty());
        value.map(|value| value.trim().to_owned()).ok_or_else(|| "the variable is not set".into())
    }

    /// What webhooks and commands are given.
    fn body(&self, event: Event, items: &[&Item]) -> String {
        let listed = &items[..items.len().min(ITEMS_MAX)];
        let more = items.len() - listed.len();
        let lines: Vec<_> = listed.iter().map(|item| format!("{}: {}", item.subject, item.message)).collect();
        let more_text = if more > 0 { format!("; and {more} more") } else { String::new() };
        let text = format!("Strongroom on {}: {}: {}{more_text}", self.host, event.name(), lines.join("; "));
        let items: Vec<_> =
            listed.iter().map(|item| json!({"subject": item.subject, "message": item.message})).collect();
        json!({
            "schema": 1,
            "event": event.name(),
            "host": self.host,
            "time": format!("{:.9}", (self.now)()),
            "plan": self.plan.sources[0].path.to_string_lossy(),
            "items": items,
            "more": more,
            "text": text,
        })
        .to_string()
    }
}

/// Whether somebody has to look at it, or had to and has not yet. What was not begun because of another domain is told of with
/// that, and what another run is at work on by that run; where it is never begun, its age is told of.
fn is_bad(report: &DomainReport) -> bool {
    report.outcome == Outcome::Failed || report.is_guarded
}

fn again(mut call: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let mut result = call();
    for _ in 1..TRIES {
        if result.is_err() {
            result = call();
        }
    }
    result
}

/// The address of a heartbeat for an event: of a start and a failure, as most services want it, one below that of a success.
fn called(address: &str, event: Event) -> String {
    let end = match event {
        Event::Start => "/start",
        Event::Failure | Event::Partial | Event::Rpo => "/fail",
        _ => return address.to_owned(),
    };
    match address.split_once('?') {
        Some((path, query)) => format!("{}{end}?{query}", path.trim_end_matches('/')),
        None => format!("{}{end}", address.trim_end_matches('/')),
    }
}
