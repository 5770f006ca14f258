//! A restore: it finds packs by the index that it has read, and reads the log on when one is gone.

use super::log::{Blobs, Storage, View};
use super::model::{Shared, Trouble};
use super::rules::Rule;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Phase {
    #[default]
    Idle,
    Reading,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Reader {
    pub done: u8,
    pub phase: Phase,
    view: View,
    snapshot: u8,
    left: Blobs,
    /// It found a pack gone, and what was in it elsewhere.
    pub has_reloaded: bool,
}

impl Reader {
    pub fn begin(&mut self, snapshot: u8, storage: &Storage) {
        let fold = storage.log.fold(storage.log.head());
        let needs = fold.snapshots.iter().find(|(seq, _)| *seq == snapshot).map_or(0, |(_, needs)| *needs);
        *self = Self {
            done: self.done,
            phase: Phase::Reading,
            view: View::open(&storage.log),
            snapshot,
            left: needs,
            has_reloaded: false,
        };
    }

    fn end(&mut self) {
        *self = Self { done: self.done + 1, has_reloaded: self.has_reloaded, ..Self::default() };
    }

    /// Reads one blob, or the log.
    pub fn step(&mut self, shared: &mut Shared<'_>) {
        let storage = &shared.storage;
        let blob = self.left & self.left.wrapping_neg();
        if blob == 0 {
            return self.end();
        }
        let fold = storage.log.fold(self.view.seq);
        let pack = storage.listed_in(fold.segments).iter().find(|pack| storage.blobs(*pack) & blob != 0);
        if pack.is_some_and(|pack| storage.packs.has(pack)) {
            self.left &= !blob;
            if self.left == 0 {
                self.end();
            }
            return;
        }
        let has_news = self.view.seq < storage.log.head() && shared.rule != Rule::NoReload;
        self.view.refresh(&storage.log);
        let is_live = |(seq, _): &(u8, Blobs)| *seq == self.snapshot;
        if !storage.log.fold(self.view.seq).snapshots.iter().any(is_live) {
            // Nobody is owed a snapshot that was forgotten while it was read.
            self.end();
        } else if has_news {
            self.has_reloaded = true;
        } else {
            *shared.trouble = Some(Trouble::ReaderFailed);
        }
    }
}
