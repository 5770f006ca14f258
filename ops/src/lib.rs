//! Strongroom's operations layer: from "a backup exists" to "we know what must exist, and it does".
//!
//! - [`plan`]: the plan file: what must be protected, how, and how well
//! - [`calendar`]: schedules as systemd writes them
//! - [`order`]: domains by their dependencies
//! - [`run`]: running domains
//! - [`drill`]: restores rehearsed
//! - [`recover`]: restores that can be undone
//! - [`noted`]: what the logs of repositories say of drills, recoveries and exceptions
//! - [`status`]: how well everything is protected now
//! - [`leftover`]: what was killed, and what is left of it
//! - [`verify`]: repositories read again, a part at a time
//! - [`notify`]: who is told of what
//! - [`compliance`]: whether its targets are met, and what excuses those that are not
//! - [`report`]: all of it as a page
//! - [`metrics`]: the same for monitoring systems
//! - [`coverage`]: what there is, and which domain has it
//! - [`units`]: timers for systemd and cron
//! - [`runbook`]: what to do on the worst day
//! - [`words`]: numbers with what they count
//!
//! Decisions are pure: time, processes and repositories come from the caller, so that tests can play them.

pub mod calendar;
pub mod compliance;
pub mod coverage;
pub mod drill;
pub mod leftover;
pub mod metrics;
pub mod noted;
pub mod notify;
pub mod order;
pub mod plan;
pub mod recover;
pub mod report;
pub mod run;
pub mod runbook;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
pub mod units;
pub mod verify;
pub mod words;
