//! Restores that can be undone: what is in a repository takes the place of what is there, which is kept beside it until somebody says
//! that it is not needed any more.
//!
//! - [`choose`]: which domains, from which repository and snapshot
//! - [`preview`]: what would be done, and what stands in the way
//! - `look`: how that is found out
//! - `mistake`: what a plan says of it that cannot be done
//! - [`targets`]: what is replaced, where what takes its place is put meanwhile
//! - [`facts`]: what the snapshot says of the world it was made in, and how that is now
//! - [`journal`]: how far a recovery is, on disk before each step that cannot be taken back by itself
//! - `stored`: paths in it, whatever their bytes
//! - [`machine`]: a recovery from its first step to its last
//! - `steps`: what is done with files
//! - `back`: the same backwards, after a failure or because somebody wants it
//! - `commands`: services stopped, started and asked; streams loaded and swapped
//! - `newcomers`: what has appeared in a mounted directory meanwhile
//! - `swap`: one target swapped, and swapped back, wherever an earlier attempt was killed
//! - `carry`: what no snapshot has, because the plan leaves it out
//! - `guard`: what must not be moved or removed with a target
//! - [`disk`]: what is asked of the file system beyond the usual
//! - [`record`]: how one ended
//! - [`elsewhere`]: those that were begun with a copy of the plan
//!
//! For each domain: staged beside what it is to replace, compared with the repository, streams loaded under another name, services
//! stopped, everything swapped, services started, asked. A failure anywhere swaps the domain back.

mod back;
mod carry;
pub mod choose;
mod commands;
pub mod disk;
pub mod elsewhere;
pub mod facts;
mod guard;
pub mod journal;
mod look;
pub mod machine;
pub(crate) mod mistake;
mod newcomers;
pub mod preview;
pub mod record;
mod steps;
pub(crate) mod stored;
mod swap;
pub mod targets;
#[cfg(test)]
mod tests;

pub use disk::{Disk, SystemDisk};
pub use journal::{Journal, Step};
pub use machine::{Held, Recoverer, Source};
pub use mistake::refuse_mistakes;
pub use preview::{Preview, Wish};
pub use record::{Cause, RecoveryOutcome, RecoveryRecord};

/// What is behind the name of a stream's target where what was in use before is meant.
pub const OLD: &str = "_old";
/// How names of directories begin that recoveries put things into.
pub const BESIDE: &str = ".strongroom-recover-";
