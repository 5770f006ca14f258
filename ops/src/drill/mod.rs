//! Rehearsed restores: what is in a repository is restored into a scratch directory, loaded, started and asked, and each phase is
//! timed.
//!
//! - [`choose`]: from which repository, and which snapshots
//! - [`machine`]: a drill from its first phase to its last
//! - [`steps`]: commands, applications and what they have to say
//! - [`place`]: the scratch directory, what is to be cleaned up after a kill, and how drills ended
//! - [`record`]: how one ended
//! - [`history`]: what drills say of a domain
//! - [`probe`]: whether an application answers
//!
//! There are three ways to end. *Pass*: everything that the tier asks for was done and was right. *Fail*: the data, the
//! application or the time was not. *Unverified*: it could not be found out; nothing is said about the data. A sample never counts as
//! more than a sample.

pub mod choose;
pub mod history;
pub mod machine;
pub mod place;
pub mod probe;
pub mod record;
pub(crate) mod steps;
#[cfg(test)]
mod tests;

pub use machine::{Compared, Driller, Part, Restored, Source, Wish};
pub use record::{DrillOutcome, DrillRecord, Phase, Restoration, Timed};
