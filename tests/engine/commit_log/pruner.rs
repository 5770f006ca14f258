//! A prune, as `prune::run` and the modules below it do it.

use super::log::{Blobs, Entry, Fold, Ids, View};
use super::model::{Outcome, Shared, Trouble};
use super::rules::Rule;
use super::writer::bits;

/// What a pruner does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Phase {
    #[default]
    Idle,
    RemoveDecide,
    RemovePublish,
    DeletePacks,
    List,
    Survey,
    Copy,
    StoreCopies,
    CondemnDecide,
    CondemnPublish,
    DeleteSegments,
}

/// A choice that time, the user or a policy makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// Condemn and remove in one run.
    NoGrace,
    /// The clock says that all that is condemned has waited long enough.
    GraceOver,
    /// The clock says that nothing has.
    GraceLasts,
    /// Packs needed in part stay.
    Leave,
    /// They are written anew.
    Repack,
}

/// A process that prunes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Pruner {
    /// Prunes begun, crashed ones included, and prunes that ended.
    pub begun: u8,
    pub done: u8,
    pub phase: Phase,
    view: View,
    base: u8,
    no_grace: bool,
    /// What is removed last of all, after condemning.
    is_last: bool,
    due: Vec<(u8, Ids)>,
    /// Packs and segments, as listed.
    listed: (Ids, Ids),
    stray_segments: Ids,
    /// Packs that go and were in the index; and those that no commit named.
    doomed: Ids,
    stray: Ids,
    repacked: Ids,
    /// What is needed of `repacked`.
    wanted: Blobs,
    copies: Ids,
    copied: Ids,
    /// Snapshots up to this commit are known to have a home.
    seen: u8,
    replaced: Ids,
    replacement: Ids,
    replaced_without: Ids,
    useless: Ids,
    entry: Entry,
    left: Ids,
}

impl Pruner {
    pub fn is_at_publication(&self) -> bool {
        matches!(self.phase, Phase::RemovePublish | Phase::CondemnPublish)
    }

    pub fn view(&self) -> View {
        self.view
    }

    /// Whether others committed while it wrote packs anew.
    pub fn is_overtaken_while_repacking(&self) -> bool {
        !self.copied.is_empty() && self.view.seq > self.base
    }

    /// The process ends before its time.
    pub fn end(&mut self) {
        *self = Self { begun: self.begun, done: self.done, ..Self::default() };
    }

    /// What there is to choose at this moment; nothing where there is but one way to go on.
    pub fn choices(&self, has_condemned: bool) -> &'static [Choice] {
        match self.phase {
            Phase::Idle if has_condemned => &[Choice::NoGrace, Choice::GraceOver, Choice::GraceLasts],
            Phase::Idle => &[Choice::NoGrace, Choice::GraceLasts],
            Phase::Survey => &[Choice::Leave, Choice::Repack],
            _ => &[],
        }
    }

    pub fn step(&mut self, number: usize, choice: Option<Choice>, shared: &mut Shared<'_>) {
        match self.phase {
            Phase::Idle => self.begin(choice, shared),
            Phase::RemoveDecide => self.decide_removal(shared),
            Phase::RemovePublish => match shared.publish(&mut self.view, self.entry) {
                Outcome::Published if shared.rule == Rule::DeleteFirst => self.after_removal(),
                Outcome::Published => {
                    self.left = self.entry.gone;
                    self.phase = Phase::DeletePacks;
                }
                Outcome::Lost => self.phase = Phase::RemoveDecide,
                Outcome::Failed => self.end(),
            },
            Phase::DeletePacks => self.delete_pack(shared),
            Phase::List => {
                self.listed = (shared.storage.packs, shared.storage.segments);
                self.phase = Phase::Survey;
            }
            Phase::Survey => self.survey(choice == Some(Choice::Repack), shared),
            Phase::Copy => self.copy(number, shared),
            Phase::StoreCopies => {
                self.copies = shared.storage.store_segment(number, self.copied);
                self.phase = Phase::CondemnDecide;
            }
            Phase::CondemnDecide => self.decide_condemnation(number, shared),
            Phase::CondemnPublish => match shared.publish(&mut self.view, self.entry) {
                Outcome::Published => self.after_condemnation(shared),
                Outcome::Lost => self.phase = Phase::CondemnDecide,
                Outcome::Failed => self.end(),
            },
            Phase::DeleteSegments => {
                let first = self.left.first().expect("the phase ends with the last");
                shared.storage.segments = shared.storage.segments.without(Ids::one(first));
                self.left = self.left.without(Ids::one(first));
                if self.left.is_empty() {
                    self.remove_at_once(shared);
                }
            }
        }
    }

    fn begin(&mut self, choice: Option<Choice>, shared: &Shared<'_>) {
        self.begun += 1;
        self.view = View::open(&shared.storage.log);
        self.no_grace = choice == Some(Choice::NoGrace);
        let is_over = self.no_grace || choice == Some(Choice::GraceOver);
        let condemned = shared.storage.log.fold(self.view.seq).condemned;
        self.due = if is_over { condemned } else { Vec::new() };
        self.phase = if self.due.is_empty() { Phase::List } else { Phase::RemoveDecide };
    }

    fn decide_removal(&mut self, shared: &Shared<'_>) {
        let fold = shared.storage.log.fold(self.view.seq);
        let gone = match shared.rule {
            Rule::IgnoreRescues => self.due.iter().fold(Ids::default(), |all, (_, packs)| all.with(*packs)),
            _ => fold.still_condemned(&self.due),
        };
        self.entry = Entry { gone, ..Entry::default() };
        if gone.is_empty() {
            self.after_removal();
        } else if shared.rule == Rule::DeleteFirst {
            self.left = gone;
            self.phase = Phase::DeletePacks;
        } else {
            self.phase = Phase::RemovePublish;
        }
    }

    fn delete_pack(&mut self, shared: &mut Shared<'_>) {
        let first = Ids::one(self.left.first().expect("the phase ends with the last"));
        shared.storage.packs = shared.storage.packs.without(first);
        self.left = self.left.without(first);
        if !self.left.is_empty() {
            return;
        }
        if shared.rule == Rule::DeleteFirst {
            self.phase = Phase::RemovePublish;
        } else if shared.rule == Rule::OneCommit && !self.replaced.with(self.useless).is_empty() {
            self.left = self.replaced.with(self.useless);
            self.phase = Phase::DeleteSegments;
        } else {
            self.after_removal();
        }
    }

    fn after_removal(&mut self) {
        if self.is_last {
            self.done += 1;
            self.end();
        } else {
            *self = Self {
                begun: self.begun,
                done: self.done,
                view: self.view,
                no_grace: self.no_grace,
                phase: Phase::List,
                ..Self::default()
            };
        }
    }

    /// Plans anew, since something is not what it was when the plan was made; but only after another prune.
    fn plan_anew(&mut self, shared: &mut Shared<'_>) {
        self.view.refresh(&shared.storage.log);
        if self.view.was_pruned_since(&shared.storage.log, self.base) {
            self.after_removal();
        } else {
            *shared.trouble = Some(Trouble::PruneFailed);
        }
    }

    /// Marks what live snapshots need, and makes the plan.
    fn survey(&mut self, repack: bool, shared: &mut Shared<'_>) {
        self.view.refresh(&shared.storage.log);
        (self.base, self.seen) = (self.view.seq, self.view.seq);
        let (storage, fold) = (&shared.storage, shared.storage.log.fold(self.view.seq));
        let needs = fold.snapshots.iter().fold(0, |all, (_, needs)| all | needs);
        let mut segments: Vec<usize> = fold.segments.iter().collect();
        segments.sort_by_key(|segment| {
            std::cmp::Reverse(storage.blobs_of(storage.listed(*segment)).count_ones())
        });
        let packs = storage.listed_in(fold.segments);
        let stored = self.listed.0.with(storage.packs);
        let home = |blob: Blobs| {
            let places = segments.iter().flat_map(|segment| storage.listed(*segment).iter());
            places.into_iter().find(|pack| stored.has(*pack) && storage.blobs(*pack) & blob != 0)
        };
        let homes: Vec<_> = bits(needs).map(|blob| (blob, home(blob))).collect();
        if homes.iter().any(|(_, home)| home.is_none()) {
            return self.plan_anew(shared);
        }
        for pack in packs.iter() {
            let marked =
                homes.iter().filter(|(_, home)| *home == Some(pack)).fold(0, |all, (blob, _)| all | blob);
            if marked == 0 {
                self.doomed = self.doomed.with(Ids::one(pack));
            } else if marked != storage.blobs(pack) && repack {
                self.repacked = self.repacked.with(Ids::one(pack));
                self.wanted |= marked;
            }
        }
        self.stray = self.listed.0.without(packs).without(fold.all_condemned());
        self.stray_segments = self.listed.1.without(fold.segments);
        self.listed = <(Ids, Ids)>::default();
        self.phase = if self.repacked.is_empty() { Phase::CondemnDecide } else { Phase::Copy };
    }

    fn copy(&mut self, number: usize, shared: &mut Shared<'_>) {
        if !self.repacked.is_within(shared.storage.packs) {
            return self.plan_anew(shared);
        }
        self.copied = shared.storage.store_pack(number, self.wanted);
        self.doomed = self.doomed.with(self.repacked);
        self.phase = Phase::StoreCopies;
    }

    fn decide_condemnation(&mut self, number: usize, shared: &mut Shared<'_>) {
        if self.view.was_pruned_since(&shared.storage.log, self.base) {
            return self.after_removal();
        }
        let fold = shared.storage.log.fold(self.view.seq);
        if shared.rule != Rule::CondemnListed {
            self.stray = self.stray.without(shared.storage.listed_in(fold.segments));
        }
        if shared.rule != Rule::MarkOnce {
            self.spare_what_new_snapshots_need(&fold, shared);
        }
        self.replace_segments(number, &fold, shared);
        let doomed = self.doomed.with(self.stray);
        let dropped = match shared.rule {
            Rule::DropCommitted => self.stray_segments,
            _ => self.stray_segments.without(fold.segments),
        };
        let added = self.copies.with(self.replacement);
        let condemned = doomed.without(fold.all_condemned());
        let gone = if shared.rule == Rule::OneCommit { condemned } else { Ids::default() };
        self.entry = Entry { added, removed: self.replaced, condemned, dropped, gone, ..Entry::default() };
        if self.entry.is_empty() {
            self.after_condemnation(shared);
        } else {
            self.phase = Phase::CondemnPublish;
        }
    }

    fn spare_what_new_snapshots_need(&mut self, fold: &Fold, shared: &mut Shared<'_>) {
        let (storage, live) = (&shared.storage, shared.storage.listed_in(fold.segments));
        let is_new = |(seq, _): &&(u8, Blobs)| *seq > self.seen;
        let needs = fold.snapshots.iter().filter(is_new).fold(0, |all, (_, needs)| all | needs);
        for blob in bits(needs) {
            let places = || live.iter().filter(|pack| storage.blobs(*pack) & blob != 0);
            let has_copy = storage.blobs_of(self.copied) & blob != 0;
            if has_copy || places().any(|pack| !self.doomed.has(pack)) {
                continue;
            }
            match places().next() {
                Some(pack) => self.doomed = self.doomed.without(Ids::one(pack)),
                None => *shared.trouble = Some(Trouble::PruneFailed),
            }
        }
        self.seen = self.view.seq;
    }

    fn replace_segments(&mut self, number: usize, fold: &Fold, shared: &mut Shared<'_>) {
        let doomed = self.doomed.with(self.stray);
        let lists_doomed = |segment: &usize| !shared.storage.listed(*segment).and(doomed).is_empty();
        let affected =
            fold.segments.iter().filter(lists_doomed).fold(Ids::default(), |all, id| all.with(Ids::one(id)));
        if affected == self.replaced && doomed == self.replaced_without {
            return;
        }
        self.useless = self.useless.with(self.replacement);
        let rest = shared.storage.listed_in(affected).without(doomed);
        self.replacement =
            if rest.is_empty() { Ids::default() } else { shared.storage.store_segment(number, rest) };
        (self.replaced, self.replaced_without) = (affected, doomed);
    }

    fn after_condemnation(&mut self, shared: &Shared<'_>) {
        if shared.rule == Rule::OneCommit && !self.entry.gone.is_empty() {
            (self.left, self.is_last) = (self.entry.gone, true);
            self.phase = Phase::DeletePacks;
            return;
        }
        self.left = self.replaced.with(self.entry.dropped).with(self.useless);
        self.phase = Phase::DeleteSegments;
        if self.left.is_empty() {
            self.remove_at_once(shared);
        }
    }

    /// Without grace, removes what is condemned, but for the strays that this run condemned: their writer may be at work.
    fn remove_at_once(&mut self, shared: &Shared<'_>) {
        self.is_last = true;
        self.due.clear();
        if self.no_grace {
            let condemned = shared.storage.log.fold(self.view.seq).condemned;
            self.due = condemned.into_iter().map(|(seq, packs)| (seq, packs.without(self.stray))).collect();
            self.due.retain(|(_, packs)| !packs.is_empty());
        }
        let (view, due) = (self.view, std::mem::take(&mut self.due));
        *self = Self { begun: self.begun, done: self.done, view, is_last: true, due, ..Self::default() };
        self.phase = Phase::RemoveDecide;
        if self.due.is_empty() {
            self.after_removal();
        }
    }
}
