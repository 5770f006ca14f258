//! Forgetting in a repository: what is committed, and holds.

use std::sync::Arc;

use super::policy::{Period, Reach};
use super::tests::{DAY, START, Utc, last, policy, record, rule};
use super::*;
use crate::backend::MemoryBackend;
use crate::testing;

/// A repository with so many snapshots of the same host and path.
fn repository(count: usize) -> (Repository, Vec<SnapshotId>) {
    let repository = testing::init(Arc::new(MemoryBackend::new()), 1);
    let mut ids = Vec::new();
    for n in 0..count {
        let record = crate::format::record::encode(&record(START + n as i64));
        let blob = repository.keys().blob_id(crate::crypto::keys::BlobKind::Snapshot, &record);
        let snapshot = SnapshotId::new(blob);
        let change = Change::SnapshotAdded { snapshot, record: record.into() };
        repository.commit(&mut |_| Ok(vec![change.clone()])).expect("committed");
        ids.push(snapshot);
    }
    (repository, ids)
}

fn options(wish: Wish) -> ForgetOptions {
    ForgetOptions {
        wish,
        selection: Selection::default(),
        group_by: GroupBy::default(),
        guards: Guards::default(),
        dry_run: false,
        reason: "space".into(),
    }
}

fn live(repository: &Repository) -> Vec<SnapshotId> {
    repository.snapshots().expect("readable").into_iter().map(|(id, _)| id).collect()
}

#[test]
fn forgetting_is_one_commit_with_reasons() {
    let (repository, ids) = repository(4);
    let dry = ForgetOptions { dry_run: true, ..options(last(2)) };
    let report = run(&repository, &dry, &Utc).expect("allowed");
    assert_eq!((report.counts(), report.commit), ((2, 2), None));
    assert_eq!(live(&repository), ids, "a dry run changes nothing");

    let report = run(&repository, &options(last(2)), &Utc).expect("allowed");
    assert_eq!((report.counts(), report.commit), ((2, 2), Some(6)));
    assert_eq!(live(&repository), &ids[2..]);
    let mut reasons = Vec::new();
    let mut fold = Fold::empty(repository.fold().config());
    let visit = &mut |entry: Result<crate::log::LogEntry, _>| {
        for change in entry.expect("no void entries").commit.changes {
            if let Change::SnapshotForgotten { reason, .. } = change {
                reasons.push(reason);
            }
        }
    };
    crate::log::read_from(&**repository.backend(), repository.keys(), &repository.id(), &mut fold, visit)
        .expect("readable");
    let expected = "no rule keeps it (keep-last 2; grouped by host,paths): space";
    assert_eq!(reasons, [expected, expected]);

    let again = run(&repository, &options(last(2)), &Utc).expect("allowed");
    assert_eq!((again.counts(), again.commit), ((2, 0), None), "nothing to forget, nothing committed");
}

#[test]
fn a_refusal_commits_nothing() {
    let (repository, ids) = repository(2);
    let result = run(&repository, &options(Wish::Named(ids.clone())), &Utc);
    assert!(matches!(result, Err(ForgetError::EmptiesGroup { .. })));
    assert_eq!((live(&repository), repository.fold().seq()), (ids, 3));
}

#[test]
fn holds_outlive_policies_and_states_and_end_with_a_release() {
    let (repository, ids) = repository(3);
    hold(&repository, ids[0], "audit").expect("held");
    run(&repository, &options(last(1)), &Utc).expect("allowed");
    assert_eq!(live(&repository), [ids[0], ids[2]]);
    assert_eq!(release(&repository, ids[2], "x").expect("no error"), None, "it was not held");
    assert!(release(&repository, ids[0], "audit done").expect("released").is_some());
    run(&repository, &options(last(1)), &Utc).expect("allowed");
    assert_eq!(live(&repository), [ids[2]]);
    let gone = hold(&repository, ids[0], "too late");
    assert!(matches!(gone, Err(RepositoryError::NoSnapshot(_))));
}

#[test]
fn holds_of_several_leave_those_for_another_reason_alone() {
    let (repository, ids) = repository(3);
    hold(&repository, ids[0], "audit").expect("held");
    hold_all(&repository, &ids, "anomaly").expect("held");
    let held = || -> Vec<Option<String>> {
        let fold = repository.fold();
        ids.iter().map(|id| fold.snapshot(id).expect("there").hold.clone()).collect()
    };
    let some = |reason: &str| Some(reason.to_owned());
    assert_eq!(held(), [some("audit"), some("anomaly"), some("anomaly")]);
    let all: Vec<_> = ids.iter().map(|id| (*id, "anomaly".to_owned())).collect();
    release_all(&repository, &all, "looked at").expect("released");
    assert_eq!(held(), [some("audit"), None, None]);
}

#[test]
fn what_is_not_selected_is_not_looked_at() {
    let (repository, ids) = repository(3);
    let selection = Selection { hosts: vec!["another".into()], ..Selection::default() };
    let report = run(&repository, &ForgetOptions { selection, ..options(last(1)) }, &Utc).expect("allowed");
    assert_eq!((report.counts(), live(&repository)), ((0, 0), ids));
}

#[test]
fn a_snapshot_that_is_named_and_not_chosen_is_an_error() {
    let (repository, ids) = repository(3);
    let selection = Selection { hosts: vec!["another".into()], ..Selection::default() };
    let named = ForgetOptions { selection, ..options(Wish::Named(vec![ids[1]])) };
    for dry_run in [true, false] {
        let result = run(&repository, &ForgetOptions { dry_run, ..named.clone() }, &Utc);
        assert!(
            matches!(result, Err(ForgetError::NotChosen { snapshot }) if snapshot == ids[1]),
            "{result:?}"
        );
    }
    assert_eq!((live(&repository), repository.fold().seq()), (ids.clone(), 4));
    let chosen = Selection { hosts: vec!["host".into()], ..Selection::default() };
    run(&repository, &ForgetOptions { selection: chosen, ..named }, &Utc).expect("chosen");
    assert_eq!(live(&repository), [ids[0], ids[2]]);
}

#[test]
fn a_group_that_is_refused_stays_and_the_report_says_so() {
    let (repository, _) = repository(0);
    let now = (repository.environment().now)().seconds;
    let add = |host: &str, seconds: i64| {
        let snapshot = Snapshot { hostname: host.into(), ..record(seconds) };
        let record = crate::format::record::encode(&snapshot);
        let blob = repository.keys().blob_id(crate::crypto::keys::BlobKind::Snapshot, &record);
        let change = Change::SnapshotAdded { snapshot: SnapshotId::new(blob), record: record.into() };
        repository.commit(&mut |_| Ok(vec![change.clone()])).expect("committed");
        SnapshotId::new(blob)
    };
    let old = [add("right", now - 3 * DAY), add("right", now - 2 * DAY)];
    let (last, ahead) = (add("right", now - DAY), [add("ahead", now - DAY), add("ahead", now + DAY)]);
    let daily = || options(policy(&[rule(Period::Day, Reach::Count(1))]));
    let dry = run(&repository, &ForgetOptions { dry_run: true, ..daily() }, &Utc).expect("decided");
    let report = run(&repository, &daily(), &Utc).expect("the others are decided");
    for report in [dry, report] {
        let refused: Vec<_> =
            report.refused().map(|(key, error)| (key.host.as_deref(), error.snapshot())).collect();
        assert_eq!(refused, [(Some("ahead"), ahead[1])]);
        assert_eq!((report.counts(), report.is_refused()), ((3, 2), false));
    }
    assert_eq!(live(&repository), [last, ahead[0], ahead[1]], "not {old:?}");
    let selection = Selection { hosts: vec!["ahead".into()], ..Selection::default() };
    let report = run(&repository, &ForgetOptions { selection, ..daily() }, &Utc).expect("it is told");
    assert!(report.is_refused() && report.commit.is_none());
    assert_eq!(live(&repository).len(), 3);
}
