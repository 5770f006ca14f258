//! Running a plan: domain by domain, from hooks to snapshots to retention.
//!
//! - [`select`]: which domains are run, in which order, and why
//! - [`again`]: what is due again, since the last attempt has not got there
//! - `all`: all of them, one after the other
//! - [`domain`]: one domain, from its first hook to its last
//! - `read`: what it is read from
//! - `refused`: runs that cannot begin, on record all the same
//! - `copies`: its other repositories
//! - `facts`: what is recorded with snapshots of the world around the data
//! - [`turn`]: of several runs of what is due, one at a time
//! - [`anomaly`]: snapshots that are not like those before
//! - [`process`]: commands: started, watched, ended
//! - [`lock`]: locks that say who holds them
//! - [`plans`]: which state folder a plan has
//! - [`state`]: what a host remembers: locks, what is to be cleaned up after a kill, attempts
//! - `last_plan`: what the plan said when it could be read
//! - [`vault`]: what a run needs of repositories

pub mod again;
mod all;
pub mod anomaly;
mod cleanup;
mod copies;
pub mod domain;
pub(crate) mod facts;
mod last_plan;
mod lines;
pub mod lock;
pub(crate) mod marks;
pub mod plans;
pub mod process;
mod read;
mod refused;
mod report;
mod retention;
pub mod select;
pub mod sqlite;
pub(crate) mod stage;
pub mod state;
pub(crate) mod stream;
pub mod system;
#[cfg(test)]
mod tests;
pub mod turn;
pub mod vault;

pub use domain::{Patience, Runner};
pub use last_plan::last_plan;
pub use refused::refused;
pub use report::{Copied, Deferral, DomainReport, RepoReport};
pub use state::Outcome;
