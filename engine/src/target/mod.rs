//! The directory that a restore writes into: creating, changing and removing entries without ever touching
//! anything outside it.
//!
//! This layer knows no repository and plans nothing. [`TargetRoot`] does operations on single entries,
//! [`MetadataWriter`] applies recorded metadata, [`holes`] shapes the content of files, whose bytes the caller
//! writes through the [`std::fs::File`] it gets.
//!
//! # Threats
//!
//! A tree may have been written by an enemy, and another process may change the target while we work in it.
//!
//! * **Names** from a tree pass [`check_name`]: no `/`, no `..`, so a [`RelativePath`] only leads down.
//! * **Symbolic links** are never followed below the target, at any depth. A parent directory is resolved by
//!   `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS`, or name by name with
//!   `O_NOFOLLOW | O_DIRECTORY` where that call is missing or forbidden; the operation itself is then one `…at`
//!   call on a handle and a single name, which does not follow either. Only the path of the target itself,
//!   which the user gave, may go through links.
//! * **A race** that swaps a directory for a link is lost by the other side: between resolving and acting there
//!   is a handle and no path. At worst an operation fails.
//! * **A race that renames a directory** can do this and no more: a directory that was in the target when it
//!   was resolved, and is moved elsewhere by somebody who may do so, still receives what was meant for it, for as
//!   long as its handle is cached. He moves our files along with their directory, as he could a moment later.
//!   He cannot make us write into a directory that was never in the target.
//! * **Hard links** of files outside cannot be told from files inside, so nothing is changed in place that has
//!   more names than it was recorded with ([`TargetError::Shared`]). New files are created with `O_EXCL`.
//! * **Pipes and devices** in the place of files are not opened: they could block or act.
//! * **Rights**: until its metadata is applied nobody can do more with a file than after ([`creation_mode`]);
//!   set-id bits return only to the owner they were recorded for.
//! * **Mount points** inside the target are part of it when writing, but [`TargetRoot::remove_tree`] does not
//!   enter them.
//!
//! Not defended against: root, who can mount anything anywhere; and a directory of the target that somebody
//! else may write to is theirs to fill.

mod accounts;
mod cache;
mod direct;
mod error;
mod handle;
pub mod holes;
mod incomplete;
pub mod metadata;
mod name;
mod read;
mod remove;
mod resolve;
mod root;
mod stat;
mod xattrs;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod metadata_tests;
#[cfg(test)]
mod race_tests;
#[cfg(test)]
pub(crate) mod test_support;

pub use accounts::{Accounts, LocalAccounts};
pub use direct::{Bounce, Output};
pub use error::TargetError;
#[cfg(test)]
pub(crate) use incomplete::mark as mark_of_incomplete;
pub use incomplete::{LeftOver, SUFFIX as INCOMPLETE_SUFFIX, whole_name};
pub use metadata::{MetadataError, MetadataOptions, MetadataPart, MetadataWriter, creation_mode};
pub use name::{NameError, RelativePath, check_name};
pub use root::{MadeDir, Obstacle, SpecialNode, TargetRoot};
pub use stat::{EntryKind, TargetStat};
