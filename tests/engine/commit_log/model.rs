//! The protocol as a transition system: which actors there are, what may happen next, and what must always hold.

use stateright::{Model, Property};

use super::log::{Blobs, Entry, Ids, Storage, View};
use super::pruner::{self, Choice, Pruner};
use super::reader::{self, Reader};
use super::rules::{Bounds, Event, Rule};
use super::writer::{self, Writer, bits};

/// Something that no actor can get over by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// A reader of a live snapshot failed, and the log says nothing new.
    ReaderFailed,
    /// A prune failed, though nobody had pruned meanwhile.
    PruneFailed,
    /// A writer has to store anew what it had stored, and there was one prune only.
    RobbedByOnePrune,
    /// A commit was published that readers take for void.
    VoidCommit,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub storage: Storage,
    pub writers: Vec<Writer>,
    pub pruners: Vec<Pruner>,
    pub reader: Reader,
    /// Commits on their way: their writers have given them up.
    pub late: Vec<(u8, Entry)>,
    /// Late commits that came after all.
    pub landed: u8,
    forgets: u8,
    crashes: u8,
    timeouts: u8,
    pub trouble: Option<Trouble>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    Writer(usize),
    Pruner(usize),
    Reader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The actor goes on.
    Step(Actor),
    Choose(Actor, Choice),
    /// The reader begins with the snapshot of a commit.
    Read(u8),
    /// The actor's process ends, and another one begins from the start.
    Crash(Actor),
    /// The actor's publication fails without effect, and it gives up.
    Fail(Actor),
    /// The same, but the commit is still on its way.
    Delay(Actor),
    /// The late commit comes, if its number is still free.
    Land(usize),
    /// Somebody forgets the snapshot of a commit.
    Forget(u8),
}

/// How a publication went.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Published,
    /// Somebody else was first: the log was read on.
    Lost,
    Failed,
}

/// What actors share, as one of them sees it during a step.
pub struct Shared<'a> {
    pub rule: Rule,
    pub merges: bool,
    pub prunes_begun: u8,
    pub storage: &'a mut Storage,
    pub trouble: &'a mut Option<Trouble>,
    late: &'a mut Vec<(u8, Entry)>,
    fate: Fate,
}

/// What becomes of a publication.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    Fails,
    Late,
}

impl Shared<'_> {
    /// Creates the commit after `view`, if it is absent. An ambiguous outcome is settled by reading the slot back.
    pub fn publish(&mut self, view: &mut View, entry: Entry) -> Outcome {
        if self.storage.log.head() != view.seq {
            view.refresh(&self.storage.log);
            return Outcome::Lost;
        }
        match self.fate {
            Fate::Arrives => {
                append(self.storage, self.late, self.trouble, entry);
                view.refresh(&self.storage.log);
                return Outcome::Published;
            }
            Fate::Fails => {}
            Fate::Late => self.late.push((view.seq + 1, entry)),
        }
        if self.rule == Rule::TrustTimeouts { Outcome::Published } else { Outcome::Failed }
    }
}

/// Adds a commit to the log. Those that were on their way with its number will never be.
fn append(storage: &mut Storage, late: &mut Vec<(u8, Entry)>, trouble: &mut Option<Trouble>, entry: Entry) {
    let fold = storage.log.fold(storage.log.head());
    let fits = entry.removed.is_within(fold.segments)
        && entry.gone.is_within(fold.all_condemned().with(entry.condemned))
        && entry.dropped.and(fold.segments).is_empty();
    if !fits {
        *trouble = Some(Trouble::VoidCommit);
    }
    storage.log.0.push(entry);
    let next = storage.log.head() + 1;
    late.retain(|(seq, _)| *seq == next);
}

/// The model.
#[derive(Clone, Debug)]
pub struct CommitLog {
    pub bounds: Bounds,
    pub rule: Rule,
    /// Whether it is also tried in each state that each actor comes to its end alone.
    pub alone: bool,
}

impl CommitLog {
    fn needs(&self, state: &State, writer: usize) -> Option<Blobs> {
        self.bounds.writers[writer].get(usize::from(state.writers[writer].done)).copied()
    }

    fn is_done(&self, state: &State, actor: Actor) -> bool {
        match actor {
            Actor::Writer(at) => self.needs(state, at).is_none(),
            Actor::Pruner(at) => state.pruners[at].done == self.bounds.pruners[at],
            Actor::Reader => state.reader.done == self.bounds.reads,
        }
    }

    fn actors(&self) -> impl Iterator<Item = Actor> {
        let writers = (0..self.bounds.writers.len()).map(Actor::Writer);
        writers.chain((0..self.bounds.pruners.len()).map(Actor::Pruner)).chain([Actor::Reader])
    }

    /// What an actor may do if nothing goes wrong.
    fn steps(&self, state: &State, actor: Actor, actions: &mut Vec<Action>) {
        if self.is_done(state, actor) {
            return;
        }
        let fold = || state.storage.log.fold(state.storage.log.head());
        match actor {
            Actor::Reader if state.reader.phase == reader::Phase::Idle => {
                let snapshots = fold().snapshots;
                actions.extend(snapshots.iter().map(|(seq, _)| Action::Read(*seq)));
                // Nothing to read is no reason to wait.
                if snapshots.is_empty() {
                    actions.push(Action::Step(actor));
                }
            }
            Actor::Pruner(at) => {
                let has_condemned = !fold().condemned.is_empty();
                let choices = state.pruners[at].choices(has_condemned);
                actions.extend(choices.iter().map(|choice| Action::Choose(actor, *choice)));
                if choices.is_empty() {
                    actions.push(Action::Step(actor));
                }
            }
            _ => actions.push(Action::Step(actor)),
        }
    }

    /// What may go wrong with an actor.
    fn mishaps(&self, state: &State, actor: Actor, actions: &mut Vec<Action>) {
        let (is_idle, publishes, view) = match actor {
            Actor::Writer(at) => {
                let writer = &state.writers[at];
                (writer.phase == writer::Phase::Idle, writer.is_at_publication(), writer.view())
            }
            Actor::Pruner(at) => {
                let pruner = &state.pruners[at];
                (pruner.phase == pruner::Phase::Idle, pruner.is_at_publication(), pruner.view())
            }
            // A reader leaves nothing behind: its end is no event.
            Actor::Reader => return,
        };
        if !is_idle && state.crashes > 0 {
            actions.push(Action::Crash(actor));
        }
        if publishes && state.timeouts > 0 && view.seq == state.storage.log.head() {
            actions.extend([Action::Fail(actor), Action::Delay(actor)]);
        }
    }

    fn advance(&self, state: &mut State, actor: Actor, choice: Option<Choice>, fate: Fate) {
        let prunes_begun = state.pruners.iter().map(|pruner| pruner.begun).sum();
        let needs = if let Actor::Writer(at) = actor { self.needs(state, at) } else { None };
        let mut shared = Shared {
            rule: self.rule,
            merges: self.bounds.merges,
            prunes_begun,
            storage: &mut state.storage,
            trouble: &mut state.trouble,
            late: &mut state.late,
            fate,
        };
        match actor {
            Actor::Writer(at) => {
                state.writers[at].step(at, needs.expect("one that is done takes no step"), &mut shared);
            }
            Actor::Pruner(at) => state.pruners[at].step(self.bounds.writers.len() + at, choice, &mut shared),
            Actor::Reader => state.reader.step(&mut shared),
        }
    }

    /// Whether the actor comes to its end if all others stand still for ever, be they dead or slow.
    fn ends_alone(&self, state: &State, actor: Actor) -> bool {
        let mut state = state.clone();
        for _ in 0..200 {
            let mut actions = Vec::new();
            self.steps(&state, actor, &mut actions);
            let Some(action) = actions.first() else { return self.is_done(&state, actor) };
            state = self.next_state(&state, *action).expect("every action leads on");
            if state.trouble.is_some() {
                return false;
            }
        }
        false
    }
}

impl Model for CommitLog {
    type State = State;
    type Action = Action;

    /// A repository with one snapshot of two blobs, in one pack.
    fn init_states(&self) -> Vec<State> {
        let writers = self.bounds.writers.len();
        let mut storage = Storage::new(writers + self.bounds.pruners.len());
        let pack = storage.store_pack(writers, 0b11);
        let added = storage.store_segment(writers, pack);
        storage.log.0.push(Entry { snapshot: 0b11, added, ..Entry::default() });
        vec![State {
            storage,
            writers: vec![Writer::default(); writers],
            pruners: vec![Pruner::default(); self.bounds.pruners.len()],
            reader: Reader::default(),
            late: Vec::new(),
            landed: 0,
            forgets: self.bounds.forgets,
            crashes: self.bounds.crashes,
            timeouts: self.bounds.timeouts,
            trouble: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for actor in self.actors() {
            self.steps(state, actor, actions);
            if !self.is_done(state, actor) {
                self.mishaps(state, actor, actions);
            }
        }
        actions.extend((0..state.late.len()).map(Action::Land));
        if state.forgets > 0 {
            let snapshots = state.storage.log.fold(state.storage.log.head()).snapshots;
            actions.extend(snapshots.iter().map(|(seq, _)| Action::Forget(*seq)));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Step(actor) => self.advance(&mut state, actor, None, Fate::Arrives),
            Action::Choose(actor, choice) => self.advance(&mut state, actor, Some(choice), Fate::Arrives),
            Action::Read(seq) => state.reader.begin(seq, &state.storage),
            Action::Crash(actor) => {
                state.crashes -= 1;
                match actor {
                    Actor::Writer(at) => state.writers[at].end(),
                    Actor::Pruner(at) => state.pruners[at].end(),
                    Actor::Reader => return None,
                }
            }
            Action::Fail(actor) | Action::Delay(actor) => {
                state.timeouts -= 1;
                let fate = if matches!(action, Action::Fail(_)) { Fate::Fails } else { Fate::Late };
                self.advance(&mut state, actor, None, fate);
            }
            Action::Land(at) => {
                let (_, entry) = state.late.swap_remove(at);
                state.landed += 1;
                append(&mut state.storage, &mut state.late, &mut state.trouble, entry);
            }
            Action::Forget(seq) => {
                state.forgets -= 1;
                let entry = Entry { forgotten: seq, ..Entry::default() };
                append(&mut state.storage, &mut state.late, &mut state.trouble, entry);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("no committed snapshot dangles", |_, state: &State| !dangles(state)),
            Property::always("nothing live is deleted", |_, state: &State| !lacks_live_object(state)),
            Property::always("what is condemned is not in the index", |_, state: &State| {
                !lists_condemned(state)
            }),
            Property::always("no commit is void", |_, state: &State| {
                state.trouble != Some(Trouble::VoidCommit)
            }),
            Property::always("no reader fails", |_, state: &State| {
                state.trouble != Some(Trouble::ReaderFailed)
            }),
            Property::always("no prune fails", |_, state: &State| {
                state.trouble != Some(Trouble::PruneFailed)
            }),
            Property::always("one prune robs no backup", |model: &Self, state: &State| {
                model.bounds.pruners.len() > 1 || state.trouble != Some(Trouble::RobbedByOnePrune)
            }),
            Property::always("nobody is stuck", |model: &Self, state: &State| {
                let mut actions = Vec::new();
                model.actions(state, &mut actions);
                !actions.is_empty() || model.actors().all(|actor| model.is_done(state, actor))
            }),
        ];
        properties.extend(Event::ALL.map(|event| Property::sometimes(event.name(), event.test())));
        if self.alone {
            properties
                .push(Property::always("everyone comes to an end alone", |model: &Self, state: &State| {
                    model.actors().all(|actor| model.ends_alone(state, actor))
                }));
        }
        properties
    }
}

/// Whether a live snapshot needs a blob that no stored pack of a live, stored segment has.
fn dangles(state: &State) -> bool {
    let storage = &state.storage;
    let fold = storage.log.fold(storage.log.head());
    let homes = storage.listed_in(fold.segments.and(storage.segments)).and(storage.packs);
    fold.snapshots.iter().flat_map(|(_, needs)| bits(*needs)).any(|blob| storage.blobs_of(homes) & blob == 0)
}

fn lacks_live_object(state: &State) -> bool {
    let storage = &state.storage;
    let segments = storage.log.fold(storage.log.head()).segments;
    !segments.is_within(storage.segments) || !storage.listed_in(segments).is_within(storage.packs)
}

fn lists_condemned(state: &State) -> bool {
    let storage = &state.storage;
    let fold = storage.log.fold(storage.log.head());
    let listed: Ids = storage.listed_in(fold.segments);
    !listed.and(fold.all_condemned()).is_empty()
}
