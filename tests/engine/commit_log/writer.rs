//! A backup, as `backup::session` and `backup::revalidate` do it, and the merge of segments after it, as
//! `repo::write` does it.

use super::log::{Blobs, Entry, Fold, Ids, Storage, View};
use super::model::{Outcome, Shared, Trouble};
use super::rules::Rule;

/// What a writer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Phase {
    #[default]
    Idle,
    Upload,
    StoreSegment,
    /// Looks at the log as it has read it, and makes the commit of it. With `keep` only of what was stored, for what the
    /// backup rested on was removed.
    Decide {
        keep: bool,
    },
    Publish {
        keep: bool,
    },
    Merge,
    MergeDecide,
    MergePublish,
    MergeDelete,
}

/// A process that backs up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Writer {
    /// Backups done.
    pub done: u8,
    pub phase: Phase,
    view: View,
    base: u8,
    /// Segments that list all that the backup may have deduplicated against.
    known: Ids,
    own: Ids,
    segment: Ids,
    entry: Entry,
    parts: Ids,
    /// How many prunes had begun when the backup did.
    prunes_begun: u8,
    /// It lost what it rested on and began anew.
    pub began_anew: bool,
}

impl Writer {
    pub fn is_at_publication(&self) -> bool {
        matches!(self.phase, Phase::Publish { .. } | Phase::MergePublish)
    }

    pub fn view(&self) -> View {
        self.view
    }

    /// The process ends, whatever it was at. A backup whose snapshot is there need not be repeated.
    pub fn end(&mut self) {
        let is_done = matches!(
            self.phase,
            Phase::Merge | Phase::MergeDecide | Phase::MergePublish | Phase::MergeDelete
        );
        *self = Self { done: self.done + u8::from(is_done), ..Self::default() };
    }

    /// Takes one step. `needs` is what its snapshot is to have.
    pub fn step(&mut self, number: usize, needs: Blobs, shared: &mut Shared<'_>) {
        match self.phase {
            Phase::Idle => {
                self.view = View::open(&shared.storage.log);
                self.prunes_begun = shared.prunes_begun;
                self.scan(needs, shared.storage);
            }
            Phase::Upload => {
                let missing = needs & !self.listed(shared.storage);
                self.own = match shared.rule {
                    Rule::ReuseIds => self.store_under_old_id(number, missing, shared.storage),
                    _ => shared.storage.store_pack(number, missing),
                };
                self.phase = Phase::StoreSegment;
            }
            Phase::StoreSegment => {
                self.segment = shared.storage.store_segment(number, self.own);
                self.phase = Phase::Decide { keep: false };
            }
            Phase::Decide { keep } => self.decide(number, needs, keep, shared),
            Phase::Publish { keep } => match shared.publish(&mut self.view, self.entry) {
                Outcome::Published if keep => self.begin_anew(needs, shared),
                Outcome::Published => self.merge_or_end(shared),
                Outcome::Lost => self.phase = Phase::Decide { keep },
                Outcome::Failed => self.end(),
            },
            Phase::Merge => {
                self.parts = shared.storage.log.fold(self.view.seq).segments;
                let packs = shared.storage.listed_in(self.parts);
                self.segment = shared.storage.store_segment(number, packs);
                self.phase = Phase::MergeDecide;
            }
            Phase::MergeDecide => self.decide_merge(shared),
            Phase::MergePublish => match shared.publish(&mut self.view, self.entry) {
                Outcome::Published => self.phase = Phase::MergeDelete,
                Outcome::Lost => self.phase = Phase::MergeDecide,
                // The merged segment has to stay: its commit may be there.
                Outcome::Failed => self.end(),
            },
            Phase::MergeDelete => {
                let first = self.parts.first().expect("several were merged");
                shared.storage.segments = shared.storage.segments.without(Ids::one(first));
                self.parts = self.parts.without(Ids::one(first));
                if self.parts.is_empty() {
                    self.end();
                }
            }
        }
    }

    /// Blobs that the index lists as this process knows it.
    fn listed(&self, storage: &Storage) -> Blobs {
        storage.blobs_of(storage.listed_in(self.known))
    }

    fn scan(&mut self, needs: Blobs, storage: &Storage) {
        self.base = self.view.seq;
        self.known = storage.log.fold(self.view.seq).segments;
        (self.own, self.segment, self.entry) = (Ids::default(), Ids::default(), Entry::default());
        self.phase = match needs & !self.listed(storage) {
            0 => Phase::Decide { keep: false },
            _ => Phase::Upload,
        };
    }

    /// What a storage does whose ids are hashes of content: what was removed comes back under the same id.
    fn store_under_old_id(&self, number: usize, blobs: Blobs, storage: &mut Storage) -> Ids {
        let condemned = storage.log.fold(self.view.seq).all_condemned();
        let gone =
            storage.log.0.iter().fold(Ids::default(), |all, entry| all.with(entry.gone)).without(condemned);
        match gone.iter().find(|pack| storage.blobs(*pack) == blobs) {
            Some(old) => {
                storage.packs = storage.packs.with(Ids::one(old));
                Ids::one(old)
            }
            None => storage.store_pack(number, blobs),
        }
    }

    fn decide(&mut self, number: usize, needs: Blobs, keep: bool, shared: &mut Shared<'_>) {
        let fold = shared.storage.log.fold(self.view.seq);
        let was_pruned = keep || self.view.was_pruned_since(&shared.storage.log, self.base);
        let rests_on = if keep { 0 } else { needs };
        let homes = match was_pruned && shared.rule != Rule::NoRevalidation {
            false => Some(Entry { added: self.segment, ..Entry::default() }),
            true => self.validate(number, rests_on, &fold, shared),
        };
        match homes {
            None => self.phase = Phase::Decide { keep: true },
            Some(entry) if keep && entry.is_empty() => self.begin_anew(needs, shared),
            Some(entry) => {
                self.entry = Entry { snapshot: rests_on, ..entry };
                self.phase = Phase::Publish { keep };
            }
        }
    }

    /// Homes for the packs just stored and for `blobs`; none where something was removed.
    fn validate(&self, number: usize, blobs: Blobs, fold: &Fold, shared: &mut Shared<'_>) -> Option<Entry> {
        let log = &shared.storage.log;
        let gone = match shared.rule {
            Rule::TrustFold | Rule::ReuseIds => Ids::default(),
            _ => self.view.gone_packs(log),
        };
        let is_segment_gone =
            shared.rule != Rule::TrustSegment && !self.segment.and(self.view.gone_segments(log)).is_empty();
        let condemned = fold.all_condemned();
        if !self.own.and(gone).is_empty() && self.prunes_begun == shared.prunes_begun {
            *shared.trouble = Some(Trouble::RobbedByOnePrune);
        }
        let left = self.own.without(gone);
        let mut entry = Entry { rescued: left.and(condemned), ..Entry::default() };
        if !left.is_empty() {
            let is_whole = left == self.own && !is_segment_gone;
            entry.added = if is_whole { self.segment } else { shared.storage.store_segment(number, left) };
        }
        let storage = &shared.storage;
        let live = storage.blobs_of(storage.listed_in(fold.segments.with(entry.added)));
        let lifted = storage.listed_in(self.known).without(gone).and(condemned);
        let mut rescued = Ids::default();
        for blob in bits(blobs & !live) {
            let has = |pack: &usize| storage.blobs(*pack) & blob != 0;
            if !rescued.iter().any(|pack| has(&pack)) {
                rescued = rescued.with(Ids::one(lifted.iter().find(has)?));
            }
        }
        if !rescued.is_empty() && shared.rule != Rule::NoRescue {
            entry.rescued = entry.rescued.with(rescued);
            entry.added = entry.added.with(shared.storage.store_segment(number, rescued));
        }
        Some(entry)
    }

    fn begin_anew(&mut self, needs: Blobs, shared: &Shared<'_>) {
        self.began_anew = true;
        self.prunes_begun = shared.prunes_begun;
        self.scan(needs, shared.storage);
    }

    fn merge_or_end(&mut self, shared: &Shared<'_>) {
        self.phase = Phase::Merge;
        let segments = shared.storage.log.fold(self.view.seq).segments.count();
        if !shared.merges || segments < 2 {
            self.end();
        } else {
            *self = Self { done: self.done, phase: Phase::Merge, view: self.view, ..Self::default() };
        }
    }

    fn decide_merge(&mut self, shared: &mut Shared<'_>) {
        let log = &shared.storage.log;
        let is_there = self.parts.is_within(log.fold(self.view.seq).segments);
        let is_dropped = !self.segment.and(self.view.gone_segments(log)).is_empty();
        let is_ours = (is_there || shared.rule == Rule::MergeBlindly) && !is_dropped;
        if is_ours {
            self.entry = Entry { added: self.segment, removed: self.parts, ..Entry::default() };
            self.phase = Phase::MergePublish;
        } else {
            shared.storage.segments = shared.storage.segments.without(self.segment);
            self.end();
        }
    }
}

/// The single blobs of a set.
pub fn bits(blobs: Blobs) -> impl Iterator<Item = Blobs> {
    (0..8).map(|bit| 1 << bit).filter(move |blob| blobs & blob != 0)
}
