//! Snapshots whose records are not what their ids stand for, or not understood.

use serde_bytes::ByteBuf;

use super::append_only_tests::publish;
use super::*;
use crate::backup;
use crate::check;
use crate::copy::{self, CopyOptions};
use crate::crypto::keys::BlobKind;
use crate::forget::policy::{Calendar, CivilTime, GroupBy, Period, Policy, Reach, Rule, Span};
use crate::forget::{self, ForgetError, ForgetOptions, Guards, Selection, Wish};
use crate::format::commit::Change;
use crate::format::header::ObjectKind;
use crate::format::record;
use crate::format::state::State;
use crate::monitor::Silent;
use crate::prune::test_support::{World, noise, open, options, prune};
use crate::prune::{self, PruneError, PruneOptions};
use crate::repair::{self, SnapshotsOptions};
use crate::stats;

struct NoCalendar;

impl Calendar for NoCalendar {
    fn civil(&self, _: Timestamp) -> CivilTime {
        CivilTime { year: 2027, month: 1, day: 1, hour: 0, week_year: 2026, week: 53 }
    }

    fn before(&self, time: Timestamp, _: &Span) -> Timestamp {
        time
    }
}

fn forget_options(wish: Wish) -> ForgetOptions {
    ForgetOptions {
        wish,
        selection: Selection::default(),
        group_by: GroupBy { host: true, paths: false, tags: false },
        guards: Guards::default(),
        dry_run: false,
        reason: String::new(),
    }
}

/// A repository with two snapshots of which the second one has a field that nobody knows yet.
fn with_one_of_tomorrow() -> (World, SnapshotId, SnapshotId) {
    let mut world = World::new();
    world.write("d/f", &noise(1, 20_000));
    let repository = world.open();
    let first = world.back_up(&repository);
    let mut record = record::encode(&repository.find_snapshot("latest").expect("there").1);
    // A map of so many fields, and one more.
    assert!((0x80..0x8f).contains(&record[0]) || record[0] == 0xde, "a map: {:#x}", record[0]);
    match record[0] {
        0xde => record[2] += 1,
        _ => record[0] += 1,
    }
    record.extend(b"\xa8tomorrow\xc3");
    let newer = SnapshotId::new(repository.keys().blob_id(BlobKind::Snapshot, &record));
    publish(&repository, vec![Change::SnapshotAdded { snapshot: newer, record: ByteBuf::from(record) }]);
    (world, first, newer)
}

#[test]
fn one_snapshot_of_a_newer_version_is_refused_and_everything_else_goes_on() {
    let (mut world, first, newer) = with_one_of_tomorrow();
    let repository = world.open();
    let (readable, unread) = repository.readable_snapshots();
    assert_eq!((readable.len(), readable[0].0, unread.len(), unread[0].0), (1, first, 1, newer));
    assert!(unread[0].1.to_string().contains("newer version"), "{}", unread[0].1);
    for name in ["latest", &newer.to_string()] {
        let refused = repository.find_snapshot(name).expect_err("it cannot be read");
        assert!(matches!(refused, RepositoryError::Fold(FoldError::NewerSnapshot { .. })), "{refused}");
        assert!(!refused.is_damage(), "{refused}");
    }
    assert_eq!(repository.find_snapshot(&first.to_string()).expect("it can").0, first);
    // Whoever counts all of them cannot.
    stats::run(&repository, &[], &Silent).expect_err("it would leave one out");
    let report = check::run(&repository, &check::CheckOptions::default(), &Silent).expect("checked");
    assert_eq!((report.is_damaged(), report.unread_snapshots, report.snapshots), (false, 1, 2));
    assert!(report.findings.iter().any(|finding| finding.code == "snapshot-not-understood"));
    world.write("d/g", &noise(2, 20_000));
    let second = world.back_up(&open(world.storage.clone()));
    let parent = world.open().find_snapshot("latest").expect("later than the other").1.parent;
    assert_eq!(parent, Some(first));
    let repaired =
        repair::snapshots::run(&world.open(), &SnapshotsOptions::default(), &Silent).expect("looked at");
    assert_eq!((repaired.checked, repaired.snapshots.len()), (2, 0));
    let target = World::new();
    let copied = copy::run(&world.open(), &target.open(), &CopyOptions::default(), &Silent).expect("copied");
    assert_eq!((copied.snapshots.len(), copied.unread, copied.is_complete()), (2, 1, false));

    // What it needs is not known.
    let refused = prune::run(&world.open(), &PruneOptions::default(), &Silent).expect_err("refused");
    let is_fold =
        matches!(&refused, PruneError::Repository(RepositoryError::Fold(FoldError::NewerSnapshot { .. })));
    assert!(is_fold, "{refused}");
    // A policy leaves it alone.
    let one = Rule { period: Period::Each, reach: Reach::Count(1) };
    let policy = Wish::Policy(Policy { rules: vec![one], ..Policy::default() });
    let report = forget::run(&world.open(), &forget_options(policy), &NoCalendar).expect("decided");
    assert_eq!((report.counts(), report.unread.len()), ((1, 1), 0));
    world.expected.remove(&first);
    // It can be held, and taken away.
    let repository = world.open();
    assert_eq!(repository.find_snapshot_id(&newer.to_string()[..12]).expect("found"), newer);
    forget::hold(&repository, newer, "till tomorrow").expect("held");
    let named = forget_options(Wish::Named(vec![newer]));
    let held = forget::run(&repository, &named, &NoCalendar).expect_err("it is held");
    assert!(matches!(held, ForgetError::Held { .. }), "{held}");
    forget::release(&repository, newer, "").expect("released");
    let dry = ForgetOptions { dry_run: true, ..named.clone() };
    assert_eq!(forget::run(&repository, &dry, &NoCalendar).expect("decided").unread, [newer]);
    assert!(repository.fold().snapshot(&newer).is_some());
    let report = forget::run(&repository, &named, &NoCalendar).expect("forgotten");
    assert_eq!(
        (report.unread.as_slice(), report.counts(), report.commit.is_some()),
        (&[newer][..], (1, 1), true)
    );
    prune(&world.open(), &PruneOptions { threads: 1, ..PruneOptions::default() });
    assert_eq!(world.open().find_snapshot("latest").expect("the only one").0, second);
    world.verify();
}

/// Whoever had a full keyslot has the key of states, and these are not signed.
#[test]
fn a_snapshot_counts_only_under_the_id_of_its_record() {
    let mut world = World::new();
    world.write("f", b"first");
    let repository = world.open();
    let first = world.back_up(&repository);
    world.write("f", b"second");
    let second = world.back_up(&repository);
    let fold = repository.fold();
    let mut state: State = fold.to_state();
    let record = fold.snapshot(&second).expect("there").record.clone();
    state.snapshots.iter_mut().find(|entry| entry.snapshot == first).expect("there").record = record;
    let object = record::seal_object(ObjectKind::State, &state, &repository.sealer()).expect("sealed");
    world.storage.plant(&ObjectKey::state(state.seq), &object);

    let repository = world.open();
    let forged = repository.fold().snapshot(&first).expect("there").record.clone();
    assert_eq!(forged, state.snapshots.iter().find(|entry| entry.snapshot == first).expect("there").record);
    let refused = repository.find_snapshot(&first.to_string()).expect_err("it is another one");
    assert!(
        matches!(refused, RepositoryError::Fold(FoldError::OtherSnapshot(id)) if id == first),
        "{refused}"
    );
    assert!(refused.is_damage());
    assert_eq!(repository.find_snapshot("latest").expect("it is sound").0, second);
    prune::run(&repository, &PruneOptions::default(), &Silent).expect_err("what it needs is not known");
    backup::run(&repository, world.paths(), &options(), &Silent).expect("goes on");
}
