//! What can be varied about the model: its bounds, which rule is broken, and what it has to show.

use super::log::Blobs;
use super::model::{CommitLog, State};
use super::pruner::Pruner;

/// The protocol as it is, or with one rule broken, to see that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// As it is.
    Kept,
    /// A writer that lost the race commits what it had, whatever came in between.
    NoRevalidation,
    /// A writer takes condemned packs for a home and does not rescue them.
    NoRescue,
    /// A writer looks at the folded state alone, which has forgotten what was removed.
    TrustFold,
    /// A writer does not notice that a segment it has stored was dropped as a stray.
    TrustSegment,
    /// What was removed is stored again under its old id.
    ReuseIds,
    /// Segments are merged without asking whether they are still part of the index.
    MergeBlindly,
    /// Condemning and removing are one commit.
    OneCommit,
    /// Packs are deleted before the commit that allows it is published.
    DeleteFirst,
    /// What was condemned is removed, rescued or not.
    IgnoreRescues,
    /// A prune that lost the race does not look at new snapshots.
    MarkOnce,
    /// A prune condemns strays that a writer has committed meanwhile.
    CondemnListed,
    /// A prune drops segments that a writer has committed meanwhile.
    DropCommitted,
    /// A publication whose answer was lost is taken for done.
    TrustTimeouts,
    /// A reader that finds a pack gone does not read the log on.
    NoReload,
}

/// Who there is, and how much may go wrong.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// For each writer, what its backups need, one after the other.
    pub writers: Vec<Vec<Blobs>>,
    /// For each pruner, how often it prunes.
    pub pruners: Vec<u8>,
    pub reads: u8,
    pub forgets: u8,
    pub crashes: u8,
    /// Publications of which the answer is lost: the commit is not there, or comes late.
    pub timeouts: u8,
    /// Writers merge segments after their backups.
    pub merges: bool,
}

/// Something that the bounds are to bring about: a checker that never gets there shows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A condemned pack is rescued.
    Rescued,
    /// A backup loses what it rested on and begins anew.
    BeganAnew,
    /// A backup and a prune write the same log in turns while packs are written anew.
    Repacked,
    /// A reader finds a pack gone and what was in it elsewhere.
    Reloaded,
    /// A commit comes that its writer has given up.
    Landed,
}

impl Event {
    pub const ALL: [Self; 5] = [Self::Rescued, Self::BeganAnew, Self::Repacked, Self::Reloaded, Self::Landed];

    pub fn name(self) -> &'static str {
        match self {
            Self::Rescued => "a condemned pack is rescued",
            Self::BeganAnew => "a backup begins anew",
            Self::Repacked => "a pack is written anew while others commit",
            Self::Reloaded => "a reader finds a pack gone and reads on",
            Self::Landed => "a late commit comes after all",
        }
    }

    pub fn test(self) -> fn(&CommitLog, &State) -> bool {
        match self {
            Self::Rescued => |_, state| state.storage.log.0.iter().any(|entry| !entry.rescued.is_empty()),
            Self::BeganAnew => |_, state| state.writers.iter().any(|writer| writer.began_anew),
            Self::Repacked => |_, state| state.pruners.iter().any(Pruner::is_overtaken_while_repacking),
            Self::Reloaded => |_, state| state.reader.has_reloaded,
            Self::Landed => |_, state| state.landed > 0,
        }
    }
}
