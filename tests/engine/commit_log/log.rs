//! What is stored: packs, segments and the log, with nothing in them but what the protocol is about.

use std::fmt;

/// A set of blobs, one bit each.
pub type Blobs = u8;

/// Ids that one actor can give to its packs, and to its segments.
pub const PER_ACTOR: usize = 32;

/// Ids that there can be in all.
const ID_COUNT: usize = u128::BITS as usize;

/// A set of packs or of segments, one bit each. Actors number their own, so that it does not matter who came first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Ids(pub u128);

impl Ids {
    pub fn one(id: usize) -> Self {
        Self(1 << id)
    }

    pub fn has(self, id: usize) -> bool {
        self.0 >> id & 1 == 1
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..ID_COUNT).filter(move |id| self.has(*id))
    }

    pub fn first(self) -> Option<usize> {
        self.iter().next()
    }
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A commit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Entry {
    /// A snapshot added: the blobs that it needs.
    pub snapshot: Blobs,
    /// The number of the commit whose snapshot is forgotten; 0 for none.
    pub forgotten: u8,
    /// Segments that become part of the index, and those that are no more.
    pub added: Ids,
    pub removed: Ids,
    /// Segments that no commit had named.
    pub dropped: Ids,
    pub condemned: Ids,
    pub rescued: Ids,
    /// Packs that may be deleted from now on.
    pub gone: Ids,
}

impl Entry {
    /// Whether it says anything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether writers have to validate anew after it.
    fn is_prune(&self) -> bool {
        !self.condemned.with(self.gone).with(self.dropped).is_empty()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.snapshot != 0 {
            parts.push(format!("snapshot of {:b}", self.snapshot));
        }
        if self.forgotten != 0 {
            parts.push(format!("forget that of commit {}", self.forgotten));
        }
        let sets = [
            ("+segments", self.added),
            ("-segments", self.removed),
            ("dropped segments", self.dropped),
            ("condemned", self.condemned),
            ("rescued", self.rescued),
            ("removed", self.gone),
        ];
        parts.extend(
            sets.iter().filter(|(_, ids)| !ids.is_empty()).map(|(name, ids)| format!("{name} {ids:?}")),
        );
        f.write_str(&parts.join(", "))
    }
}

/// What the log amounts to up to a commit.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    /// Live snapshots: the number of their commit and what they need.
    pub snapshots: Vec<(u8, Blobs)>,
    pub segments: Ids,
    /// Condemned packs, by the commit that condemned them.
    pub condemned: Vec<(u8, Ids)>,
}

impl Fold {
    pub fn all_condemned(&self) -> Ids {
        self.condemned.iter().fold(Ids::default(), |all, (_, packs)| all.with(*packs))
    }

    /// Those of `due` that the same commit still condemns.
    pub fn still_condemned(&self, due: &[(u8, Ids)]) -> Ids {
        due.iter().fold(Ids::default(), |all, (seq, packs)| {
            let now =
                self.condemned.iter().find(|(other, _)| other == seq).map_or(Ids::default(), |(_, now)| *now);
            all.with(packs.and(now))
        })
    }
}

/// The log. Commits are numbered from 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Log(pub Vec<Entry>);

impl Log {
    /// The number of the last commit.
    pub fn head(&self) -> u8 {
        u8::try_from(self.0.len()).expect("the bounds keep the log short")
    }

    pub fn entries(&self, after: u8, until: u8) -> &[Entry] {
        &self.0[usize::from(after)..usize::from(until)]
    }

    pub fn fold(&self, until: u8) -> Fold {
        let mut fold = Fold::default();
        for (at, entry) in self.entries(0, until).iter().enumerate() {
            let seq = u8::try_from(at + 1).expect("short");
            if entry.snapshot != 0 {
                fold.snapshots.push((seq, entry.snapshot));
            }
            fold.snapshots.retain(|(seq, _)| *seq != entry.forgotten);
            fold.segments = fold.segments.without(entry.removed).with(entry.added);
            let condemned = entry.condemned.without(fold.all_condemned());
            let lifted = entry.rescued.with(entry.gone);
            fold.condemned.push((seq, condemned));
            fold.condemned.iter_mut().for_each(|(_, packs)| *packs = packs.without(lifted));
            fold.condemned.retain(|(_, packs)| !packs.is_empty());
        }
        fold
    }
}

/// Objects that an actor has made: what is in them. Whether they are still there is another matter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Made {
    packs: Vec<Blobs>,
    segments: Vec<Ids>,
}

/// The storage: everything that all actors share.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Storage {
    pub log: Log,
    made: Vec<Made>,
    pub packs: Ids,
    pub segments: Ids,
}

impl Storage {
    pub fn new(actors: usize) -> Self {
        assert!(actors * PER_ACTOR <= ID_COUNT, "ids fit a word");
        Self { made: vec![Made::default(); actors], ..Self::default() }
    }

    pub fn store_pack(&mut self, actor: usize, blobs: Blobs) -> Ids {
        let made = &mut self.made[actor].packs;
        assert!(made.len() < PER_ACTOR, "an actor stores fewer packs within these bounds");
        let id = Ids::one(actor * PER_ACTOR + made.len());
        made.push(blobs);
        self.packs = self.packs.with(id);
        id
    }

    pub fn store_segment(&mut self, actor: usize, packs: Ids) -> Ids {
        let made = &mut self.made[actor].segments;
        assert!(made.len() < PER_ACTOR, "an actor stores fewer segments within these bounds");
        let id = Ids::one(actor * PER_ACTOR + made.len());
        made.push(packs);
        self.segments = self.segments.with(id);
        id
    }

    /// Blobs in a pack.
    pub fn blobs(&self, pack: usize) -> Blobs {
        self.made[pack / PER_ACTOR].packs[pack % PER_ACTOR]
    }

    /// Blobs in any of some packs.
    pub fn blobs_of(&self, packs: Ids) -> Blobs {
        packs.iter().fold(0, |all, pack| all | self.blobs(pack))
    }

    /// Packs that a segment lists.
    pub fn listed(&self, segment: usize) -> Ids {
        self.made[segment / PER_ACTOR].segments[segment % PER_ACTOR]
    }

    /// Packs that any of some segments lists.
    pub fn listed_in(&self, segments: Ids) -> Ids {
        segments.iter().fold(Ids::default(), |all, segment| all.with(self.listed(segment)))
    }
}

/// What a process knows of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct View {
    /// The last commit when it opened the repository: what came before it knows only as a fold.
    opened: u8,
    /// The last commit that it has read.
    pub seq: u8,
}

impl View {
    pub fn open(log: &Log) -> Self {
        Self { opened: log.head(), seq: log.head() }
    }

    pub fn refresh(&mut self, log: &Log) {
        self.seq = log.head();
    }

    /// Whether a commit after `base` makes it necessary to validate anew.
    pub fn was_pruned_since(&self, log: &Log, base: u8) -> bool {
        let after = base.max(self.opened).min(self.seq);
        log.entries(after, self.seq).iter().any(Entry::is_prune)
    }

    /// Packs that it has seen removed: their ids never come back.
    pub fn gone_packs(&self, log: &Log) -> Ids {
        log.entries(self.opened, self.seq).iter().fold(Ids::default(), |all, entry| all.with(entry.gone))
    }

    /// Segments that it has seen dropped.
    pub fn gone_segments(&self, log: &Log) -> Ids {
        log.entries(self.opened, self.seq).iter().fold(Ids::default(), |all, entry| all.with(entry.dropped))
    }
}
