//! Rehearsed restores: what is in a repository is restored into a scratch directory, loaded, started and asked, and each phase is
//! timed.
//!
//! - [`choose`]: from which repository, and which snapshots
//! - [`machine`]: a drill from its first phase to its last
//! - `blind`: whether it notices a damaged byte
//! - `steps`: commands, applications and what they have to say
//! - `expect`: what an output has to be
//! - [`source`]: what a drill needs of repositories
//! - [`place`]: the scratch directory, what is to be cleaned up after a kill, and how drills ended
//! - `scratch`: the scratch directory itself
//! - [`record`]: how one ended
//! - [`history`]: what drills say of a domain
//! - [`overdue`]: which domains wait for one
//! - [`kept`]: which snapshots stay because they were restored
//! - [`probe`]: whether an application answers
//!
//! There are three ways to end. *Pass*: everything that the tier asks for was done and was right. *Fail*: the data, the
//! application or the time was not. *Unverified*: it could not be found out, or a stream was loaded by nothing; nothing is said about the data. A sample never counts as
//! more than a sample.

mod blind;
pub mod choose;
mod expect;
pub mod history;
pub mod kept;
#[cfg(test)]
mod left_tests;
pub mod machine;
pub(crate) mod mistake;
pub mod overdue;
pub mod place;
pub mod probe;
pub mod record;
pub(crate) mod scratch;
pub mod source;
pub(crate) mod steps;
#[cfg(test)]
mod tests;

pub use machine::{Driller, Wish};
pub use record::{DrillOutcome, DrillRecord, Phase, Restoration, Timed};
pub use source::{Compared, Part, Problem, Restored, Source};
