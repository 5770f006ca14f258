//! The protocol of the commit log, checked in every state that it can get into.
//!
//! - [`log`]: packs, segments, commits, and what a process knows of them
//! - [`writer`], [`pruner`], [`reader`]: the actors, step by step as the engine takes them
//! - [`rules`]: how much there is of everything, and which rule of the protocol is broken
//! - [`model`]: all of them together with crashes, lost answers and late commits, and what must always hold
//!
//! A state is everything that is stored and everything that every process keeps in mind. `stateright` visits all that
//! can be reached within some bounds. The rules of the protocol are then broken one at a time: a checker that finds nothing
//! wrong with that would say nothing about the protocol either.
//!
//! Modelled are backups with deduplication, revalidation, rescue and merges of segments, forgetting, prunes from condemning to deletion with and without
//! grace, and restores. These parts of the protocol are left to the simulation (`simulation`), which runs the engine itself:
//! append-only passwords and the vetting of what they add, states, with which others begin to read the log, parity, the ledger of verifications,
//! partial snapshots, and clocks. Repairs, which condemn and remove in one commit, have tests of their own in which others commit at the
//! worst moments (`repair::tests` in the engine); what faults and power cuts can do to everything is for `fault_tests` and `power_cut_tests` there.

mod log;
mod model;
mod pruner;
mod reader;
mod rules;
mod writer;

use std::time::{Duration, Instant};

use stateright::{Checker, CheckerBuilder, HasDiscoveries, Model};

use model::{Action, CommitLog, State};
use rules::{Bounds, Event, Rule};

const A: u8 = 0b01;
const B: u8 = 0b10;
const AB: u8 = 0b11;
/// One blob that is there already, and one that is not.
const AC: u8 = 0b101;

/// Two writers, a pruner and somebody who forgets, without mishaps.
fn calm() -> Bounds {
    Bounds {
        writers: vec![vec![AB], vec![A]],
        pruners: vec![1],
        reads: 0,
        forgets: 1,
        crashes: 0,
        timeouts: 0,
        merges: false,
    }
}

/// Two writers and a reader while one prune runs; writers merge segments.
fn with_reader() -> Bounds {
    Bounds { reads: 1, merges: true, ..calm() }
}

/// A writer that deduplicates and stores, while two prunes run one after the other.
fn two_prunes() -> Bounds {
    Bounds { writers: vec![vec![AC]], pruners: vec![2], merges: true, ..calm() }
}

/// Two pruners at once.
fn two_pruners() -> Bounds {
    Bounds { writers: vec![vec![A]], pruners: vec![1, 1], ..calm() }
}

/// Any process ends at any step, and any publication is lost or late.
fn mishaps() -> Bounds {
    Bounds { writers: vec![vec![A]], crashes: 1, timeouts: 1, merges: true, ..calm() }
}

/// Everybody at once, and everything that can go wrong once.
fn everyone() -> Bounds {
    Bounds { writers: vec![vec![A], vec![A]], reads: 1, crashes: 1, timeouts: 1, ..calm() }
}

fn builder(bounds: Bounds, alone: bool) -> CheckerBuilder<CommitLog> {
    let model = CommitLog { bounds, rule: Rule::Kept, alone };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    model.checker().finish_when(HasDiscoveries::AnyFailures).threads(threads)
}

/// Visits all states within some bounds, and counts them. What the bounds are there to show has to come up.
fn check(name: &str, bounds: Bounds, alone: bool, events: &[Event]) {
    // In breadth, so that a counterexample is as short as can be.
    judge(name, &builder(bounds, alone).spawn_bfs().join(), events);
}

/// The same in depth, which takes memory for the states visited and not for those to be visited, and for so long at most. Whether it was
/// all of them, it says.
fn check_many(name: &str, bounds: Bounds, patience: Duration) {
    let begun = Instant::now();
    let checker = builder(bounds, false).timeout(patience).spawn_dfs().join();
    judge(name, &checker, &[]);
    let took = begun.elapsed();
    let extent = if took < patience { "all there are" } else { "as many as there was time for" };
    println!("{name}: these are {extent}, in {} s", took.as_secs());
}

fn judge(name: &str, checker: &impl Checker<CommitLog>, events: &[Event]) {
    println!("{name}: {} states", checker.unique_state_count());
    let discoveries = checker.discoveries();
    for (property, path) in discoveries {
        let is_failure = Event::ALL.iter().all(|event| event.name() != property);
        assert!(!is_failure, "{name}: it does not hold that {property}:\n{}", story(path.into_vec()));
    }
    for event in events {
        assert!(checker.discovery(event.name()).is_some(), "{name}: it never happens that {}", event.name());
    }
}

/// A path to a state, in words.
fn story(path: Vec<(State, Option<Action>)>) -> String {
    let mut text = String::new();
    let mut head = 0;
    for (state, action) in path {
        let log = &state.storage.log;
        for entry in log.entries(head, log.head()) {
            head += 1;
            text += &format!("        commit {head}: {entry:?}\n");
        }
        text += &action.map_or_else(|| format!("{state:#?}\n"), |action| format!("    {action:?}\n"));
    }
    text
}

#[test]
fn the_protocol_loses_nothing_and_blocks_nobody() {
    check("calm", calm(), false, &[Event::Rescued, Event::BeganAnew, Event::Repacked]);
    check("with a reader", with_reader(), false, &[Event::Rescued, Event::BeganAnew, Event::Reloaded]);
    check("two prunes", two_prunes(), false, &[Event::Rescued, Event::BeganAnew]);
    check("two pruners", two_pruners(), false, &[Event::Rescued, Event::BeganAnew]);
    check("mishaps", mishaps(), false, &[Event::Rescued, Event::BeganAnew, Event::Landed]);
}

/// Not even a process that has stopped for ever in the middle of something holds anybody up.
#[test]
fn whoever_runs_alone_comes_to_the_end() {
    check("alone", Bounds { merges: true, ..calm() }, true, &[]);
    check("alone after mishaps", Bounds { forgets: 0, ..mishaps() }, true, &[]);
}

/// The same with more of everything:
/// `cargo test --release -p strongroom --test engine commit_log -- --ignored --nocapture`.
#[test]
#[ignore = "takes many minutes, and gigabytes of memory"]
fn the_protocol_loses_nothing_within_larger_bounds() {
    let of_two = Bounds { reads: 1, merges: true, ..calm() };
    check("two prunes and a reader", Bounds { reads: 1, ..two_prunes() }, false, &[Event::Reloaded]);
    check("three prunes", Bounds { pruners: vec![3], ..two_prunes() }, false, &[]);
    check("two crashes", Bounds { crashes: 2, timeouts: 1, reads: 1, ..mishaps() }, false, &[]);
    check("two backups each", Bounds { writers: vec![vec![A, AB], vec![B]], ..of_two.clone() }, false, &[]);
    check("a crash among two writers", Bounds { crashes: 1, ..calm() }, false, &[]);
    check("a lost answer among two writers", Bounds { timeouts: 1, ..calm() }, false, &[]);
    check("two prunes, two writers", Bounds { pruners: vec![2], ..of_two }, false, &[]);
    check("two pruners, two writers", Bounds { pruners: vec![1, 1], ..calm() }, false, &[]);
}

/// Everybody together, for `STRONGROOM_MODEL_MINUTES` (20):
/// `cargo test --release -p strongroom --test engine everyone_together -- --ignored --nocapture`.
#[test]
#[ignore = "takes many minutes, and gigabytes of memory"]
fn the_protocol_holds_for_everyone_together() {
    let minutes =
        std::env::var("STRONGROOM_MODEL_MINUTES").map_or(20, |text| text.parse().expect("a number"));
    check_many("everyone together", everyone(), Duration::from_secs(60 * minutes));
}

/// Breaks one rule: the checker has to find that this property does not hold.
#[track_caller]
fn assert_needed(rule: Rule, bounds: Bounds, property: &str) {
    let model = CommitLog { bounds, rule, alone: false };
    // By one thread, so that it is the same counterexample each time.
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let discoveries = checker.discoveries();
    let is_failure = |name: &&str| Event::ALL.iter().all(|event| event.name() != *name);
    let failures: Vec<_> = discoveries.keys().copied().filter(is_failure).collect();
    assert!(failures.contains(&property), "without {rule:?}: {failures:?}");
    println!("{rule:?}: found after {} states", checker.unique_state_count());
}

#[test]
fn every_rule_of_the_protocol_is_needed() {
    let dangles = "no committed snapshot dangles";
    assert_needed(Rule::NoRevalidation, calm(), dangles);
    assert_needed(Rule::NoRescue, calm(), dangles);
    assert_needed(Rule::TrustFold, two_prunes(), dangles);
    assert_needed(Rule::TrustSegment, two_prunes(), dangles);
    assert_needed(Rule::ReuseIds, calm(), dangles);
    assert_needed(Rule::MergeBlindly, two_prunes(), "no commit is void");
    assert_needed(Rule::OneCommit, two_prunes(), "one prune robs no backup");
    assert_needed(Rule::DeleteFirst, calm(), dangles);
    assert_needed(Rule::IgnoreRescues, calm(), "no commit is void");
    assert_needed(Rule::MarkOnce, calm(), dangles);
    assert_needed(Rule::CondemnListed, two_prunes(), dangles);
    assert_needed(Rule::DropCommitted, two_prunes(), "no commit is void");
    assert_needed(Rule::TrustTimeouts, mishaps(), "nothing live is deleted");
    assert_needed(Rule::NoReload, with_reader(), "no reader fails");
}
