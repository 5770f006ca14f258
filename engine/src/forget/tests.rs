//! Policies against a plain model, and guards: what is decided, without a repository.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::policy::{CivilTime, Period, Policy, Reach, Reason, Rule, Span};
use super::*;
use crate::format::snapshot::{Origin, SnapshotSummary};
use crate::format::tree::Timestamp;
use crate::ids::{BlobId, RepositoryId, WriterId};

pub(super) const DAY: i64 = 86_400;

/// The calendar of Greenwich, with months of 30 days where spans go back.
pub(super) struct Utc;

impl Calendar for Utc {
    fn civil(&self, time: Timestamp) -> CivilTime {
        let days = time.seconds.div_euclid(DAY);
        let (year, month, day) = civil_of_days(days);
        // Thursday decides to which year a week belongs.
        let thursday = days - (days + 3).rem_euclid(7) + 3;
        let week_year = civil_of_days(thursday).0;
        let is_new_year = |back: &i64| matches!(civil_of_days(thursday - back), (_, 1, 1));
        let week = (0..366).find(is_new_year).expect("within a year before any day") / 7 + 1;
        let hour = u8::try_from(time.seconds.rem_euclid(DAY) / 3600).expect("below 24");
        CivilTime { year, month, day, hour, week_year, week: u8::try_from(week).expect("at most 53") }
    }

    fn before(&self, time: Timestamp, span: &Span) -> Timestamp {
        let days = i64::from(span.years) * 365 + i64::from(span.months) * 30 + i64::from(span.days);
        let seconds = time.seconds - days * DAY - i64::from(span.hours) * 3600;
        Timestamp { seconds, ..time }
    }
}

/// Year, month and day of a day counted from 1970-01-01.
fn civil_of_days(days: i64) -> (i32, u8, u8) {
    let mut year = 1970;
    let mut rest = days;
    let len = |year: i64| if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 { 366 } else { 365 };
    while rest < 0 {
        year -= 1;
        rest += len(year);
    }
    while rest >= len(year) {
        rest -= len(year);
        year += 1;
    }
    let february = if len(year) == 366 { 29 } else { 28 };
    let mut month = 0;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        month += 1;
        if rest < days {
            break;
        }
        rest -= days;
    }
    (i32::try_from(year).expect("near"), month, u8::try_from(rest + 1).expect("at most 31"))
}

pub(super) fn record(seconds: i64) -> Snapshot {
    Snapshot {
        time: Timestamp { seconds, nanos: 0 },
        hostname: "host".into(),
        username: "user".into(),
        paths: vec![b"/data".to_vec().into()],
        tree: BlobId::from_bytes([0; 32]),
        tags: Vec::new(),
        parent: None,
        partial: false,
        repaired: None,
        origin: None,
        provenance: None,
        excludes: Vec::new(),
        program: "test".into(),
        summary: SnapshotSummary::default(),
    }
}

fn id(n: usize) -> SnapshotId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
    SnapshotId::new(BlobId::from_bytes(bytes))
}

fn candidates(snapshots: impl IntoIterator<Item = Snapshot>) -> Vec<Candidate> {
    let candidate = |(n, snapshot)| Candidate { id: id(n), snapshot, hold: None, appender: None };
    snapshots.into_iter().enumerate().map(candidate).collect()
}

pub(super) fn rule(period: Period, reach: Reach) -> Rule {
    Rule { period, reach }
}

pub(super) fn policy(rules: &[Rule]) -> Wish {
    Wish::Policy(Policy { rules: rules.to_vec(), ..Policy::default() })
}

pub(super) fn last(count: u64) -> Wish {
    policy(&[rule(Period::Each, Reach::Count(count))])
}

/// 2026-01-01T00:00:00Z.
pub(super) const START: i64 = 1_767_225_600;
const NOW: Timestamp = Timestamp { seconds: START + 1000 * DAY, nanos: 0 };
const ALL: Guards = Guards { allow_empty: true, allow_newest: true, allow_mass: true, trust_times: true };

fn decide_with(candidates: Vec<Candidate>, wish: &Wish, guards: Guards) -> Result<Vec<Group>, ForgetError> {
    decide(candidates, wish, GroupBy::default(), &guards, &Utc, NOW)
}

/// Numbers of the snapshots that stay.
fn kept(groups: &[Group]) -> Vec<usize> {
    let verdicts = groups.iter().flat_map(|group| &group.verdicts);
    let number = |verdict: &Verdict| {
        let bytes: [u8; 8] = verdict.candidate.id.blob().as_bytes()[..8].try_into().expect("eight bytes");
        usize::try_from(u64::from_be_bytes(bytes)).expect("small")
    };
    let mut kept: Vec<_> = verdicts.filter(|verdict| verdict.keep).map(number).collect();
    kept.sort_unstable();
    kept
}

#[test]
fn the_test_calendar_knows_its_weeks() {
    let civil = |days: i64| Utc.civil(Timestamp { seconds: START + days * DAY, nanos: 0 });
    assert_eq!((civil(0).week_year, civil(0).week), (2026, 1));
    assert_eq!((civil(-4).week_year, civil(-4).week), (2025, 52), "a Sunday");
    assert_eq!((civil(364).week_year, civil(364).week), (2026, 53), "2026 has 53 weeks");
    assert_eq!((civil(367).week_year, civil(367).week), (2026, 53), "2027-01-03 belongs to them");
    assert_eq!((civil(368).week_year, civil(368).week), (2027, 1));
    assert_eq!((civil(58).month, civil(58).day, civil(59).month), (2, 28, 3));
}

/// The same by definition: periods as a map, of each the last snapshot, of these the newest so many.
fn model(times: &[i64], rules: &[Rule]) -> Vec<usize> {
    let mut keep = vec![false; times.len()];
    for rule in rules {
        let mut periods: BTreeMap<(i32, u8, u8, u8, usize), usize> = BTreeMap::new();
        for (at, seconds) in times.iter().enumerate() {
            let civil = Utc.civil(Timestamp { seconds: *seconds, nanos: 0 });
            let key = match rule.period {
                Period::Each => (0, 0, 0, 0, at),
                Period::Hour => (civil.year, civil.month, civil.day, civil.hour, 0),
                Period::Day => (civil.year, civil.month, civil.day, 0, 0),
                Period::Week => (civil.week_year, civil.week, 0, 0, 0),
                Period::Month => (civil.year, civil.month, 0, 0, 0),
                Period::Year => (civil.year, 0, 0, 0, 0),
            };
            periods.insert(key, at);
        }
        let mut ends: Vec<_> = periods.into_values().rev().collect();
        match rule.reach {
            Reach::Count(count) => ends.truncate(usize::try_from(count).expect("small")),
            Reach::Unlimited => {}
            Reach::Within(span) => {
                let newest = Timestamp { seconds: times[times.len() - 1], nanos: 0 };
                let from = Utc.before(newest, &span).seconds;
                ends.retain(|at| times[*at] >= from);
            }
        }
        ends.into_iter().for_each(|at| keep[at] = true);
    }
    (0..times.len()).filter(|at| keep[*at]).collect()
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let period = prop_oneof![
        Just(Period::Each),
        Just(Period::Hour),
        Just(Period::Day),
        Just(Period::Week),
        Just(Period::Month),
        Just(Period::Year)
    ];
    let within = (0u32..2, 0u32..4, 0u32..40, 0u32..50)
        .prop_map(|(years, months, days, hours)| Reach::Within(Span { years, months, days, hours }));
    let reach = prop_oneof![4 => (0u64..12).prop_map(Reach::Count), 1 => Just(Reach::Unlimited), 3 => within];
    (period, reach).prop_map(|(period, reach)| Rule { period, reach })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn policies_keep_what_the_model_keeps(
        steps in prop::collection::vec(prop_oneof![1i64..4000, 3000i64..200_000, 100_000i64..9_000_000], 1..40),
        rules in prop::collection::vec(any_rule(), 1..5),
    ) {
        let times: Vec<i64> = steps.iter().scan(START, |at, step| { *at += step; Some(*at) }).collect();
        let expected = model(&times, &rules);
        let wish = policy(&rules);
        match decide_with(candidates(times.iter().map(|time| record(*time))), &wish, ALL) {
            Ok(groups) => {
                prop_assert_eq!(kept(&groups), expected);
                for verdict in groups.iter().flat_map(|group| &group.verdicts) {
                    prop_assert!(!verdict.reasons.is_empty());
                    prop_assert_eq!(verdict.keep, verdict.reasons != [Reason::NoRule]);
                }
            }
            Err(ForgetError::NothingAsked) => {
                prop_assert!(rules.iter().all(|rule| rule.reach == Reach::Count(0)));
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}

#[test]
fn the_last_one_of_each_day_stays() {
    // Three a day for ten days.
    let times = (0..30).map(|n| START + n * DAY / 3);
    let groups =
        decide_with(candidates(times.map(record)), &policy(&[rule(Period::Day, Reach::Count(3))]), ALL);
    let groups = groups.expect("allowed");
    assert_eq!(kept(&groups), [23, 26, 29]);
    let reasons = &groups[0].verdicts[23].reasons;
    assert_eq!(reasons[0].to_string(), "keep-daily 3 (day 3)");
}

#[test]
fn groups_are_thinned_out_one_by_one() {
    let of = |host: &str, path: &str, tag: &str, n: i64| Snapshot {
        hostname: host.into(),
        paths: vec![path.as_bytes().to_vec().into()],
        tags: vec![tag.into()],
        ..record(START + n)
    };
    let all = || {
        candidates([
            of("a", "/x", "t", 0),
            of("a", "/x", "u", 1),
            of("b", "/x", "t", 2),
            of("a", "/y", "t", 3),
        ])
    };
    let by = |host, paths, tags| {
        let by = GroupBy { host, paths, tags };
        kept(&decide(all(), &last(1), by, &ALL, &Utc, NOW).expect("allowed"))
    };
    assert_eq!(by(true, true, false), [1, 2, 3]);
    assert_eq!(by(false, false, false), [3]);
    assert_eq!(by(false, true, false), [2, 3]);
    assert_eq!(by(true, false, false), [2, 3]);
    assert_eq!(by(true, true, true), [0, 1, 2, 3]);
}

#[test]
fn the_order_of_paths_makes_no_other_group() {
    let of = |paths: [&str; 2], n| Snapshot {
        paths: paths.iter().map(|path| path.as_bytes().to_vec().into()).collect(),
        ..record(START + n)
    };
    let groups = decide_with(candidates([of(["/a", "/b"], 0), of(["/b", "/a"], 1)]), &last(1), ALL);
    assert_eq!(kept(&groups.expect("allowed")), [1]);
}

#[test]
fn tags_ids_and_holds_keep_what_rules_do_not() {
    let mut all = candidates((0..5).map(|n| record(START + n)));
    all[0].snapshot.tags = vec!["yearly".into(), "audit".into()];
    all[1].hold = Some("court order".into());
    let wish = Wish::Policy(Policy {
        rules: vec![rule(Period::Each, Reach::Count(1))],
        tags: vec![vec!["audit".into(), "nothing".into()], vec!["yearly".into(), "audit".into()]],
        ids: vec![id(2)],
        ..Policy::default()
    });
    let groups = decide_with(all, &wish, Guards::default()).expect("allowed");
    assert_eq!(kept(&groups), [0, 1, 2, 4]);
    assert_eq!(groups[0].verdicts[1].reasons, [Reason::Held("court order".into())]);
    assert_eq!(groups[0].verdicts[3].reasons, [Reason::NoRule]);
}

#[test]
fn a_held_snapshot_cannot_be_named() {
    let mut all = candidates((0..2).map(|n| record(START + n)));
    all[0].hold = Some("audit".into());
    let result = decide_with(all, &Wish::Named(vec![id(0)]), ALL);
    assert!(matches!(result, Err(ForgetError::Held { snapshot, .. }) if snapshot == id(0)));
}

#[test]
fn partial_snapshots_go_when_a_complete_one_took_their_place_and_fill_no_rule() {
    let partial = |n| Snapshot { partial: true, ..record(START + n) };
    let all = candidates([record(START), partial(1), record(START + 2), partial(3), partial(4)]);
    let groups = decide_with(all, &last(2), Guards::default()).expect("allowed");
    assert_eq!(kept(&groups), [0, 2, 3, 4]);
    assert_eq!(groups[0].verdicts[1].reasons, [Reason::Superseded]);
    for verdict in &groups[0].verdicts[3..] {
        assert_eq!(verdict.reasons, [Reason::Unfinished]);
    }
    // Of other paths in the same group it is still unfinished.
    let other = Snapshot { paths: vec![b"/other".to_vec().into()], ..partial(1) };
    let by = GroupBy { host: true, paths: false, tags: false };
    let all = candidates([other, record(START + 2)]);
    assert_eq!(kept(&decide(all, &last(1), by, &Guards::default(), &Utc, NOW).expect("allowed")), [0, 1]);
}

#[test]
fn nothing_said_is_nothing_done() {
    for wish in [Wish::Named(Vec::new()), Wish::Policy(Policy::default()), last(0)] {
        let result = decide_with(candidates([record(START)]), &wish, ALL);
        assert!(matches!(result, Err(ForgetError::NothingAsked)), "{wish:?}");
    }
}

#[test]
fn a_group_is_not_emptied_by_the_way() {
    let untagged = Wish::Policy(Policy { tags: vec![vec!["no such tag".into()]], ..Policy::default() });
    for wish in [untagged, Wish::Named(vec![id(0), id(1)])] {
        let all = || candidates((0..2).map(|n| record(START + n)));
        let result = decide_with(all(), &wish, Guards::default());
        assert!(matches!(result, Err(ForgetError::EmptiesGroup { count: 2, .. })), "{wish:?}");
        let guards = Guards { allow_empty: true, ..Guards::default() };
        assert_eq!(kept(&decide_with(all(), &wish, guards).expect("asked for")), [0usize; 0]);
    }
    // A partial snapshot is no replacement for a complete one.
    let all = candidates([record(START), Snapshot { partial: true, ..record(START + 1) }]);
    let result = decide_with(all, &Wish::Named(vec![id(0)]), Guards::default());
    assert!(matches!(result, Err(ForgetError::EmptiesGroup { .. })));
}

#[test]
fn the_newest_complete_one_is_not_forgotten_by_the_way() {
    let all = |kept: usize| {
        let last = Snapshot { partial: true, ..record(START + 3) };
        let mut all = candidates([record(START), record(START + 1), record(START + 2), last]);
        all[kept].snapshot.tags = vec!["old".into()];
        all
    };
    let tagged = |rules: &[Rule]| {
        Wish::Policy(Policy { rules: rules.to_vec(), tags: vec![vec!["old".into()]], ..Policy::default() })
    };
    let result = decide_with(all(0), &tagged(&[]), Guards::default());
    assert!(matches!(result, Err(ForgetError::Newest { snapshot, .. }) if snapshot == id(2)), "{result:?}");
    let asked = Guards { allow_newest: true, ..Guards::default() };
    assert_eq!(kept(&decide_with(all(0), &tagged(&[]), asked).expect("asked for")), [0, 3]);
    assert_eq!(kept(&decide_with(all(2), &tagged(&[]), Guards::default()).expect("it stays")), [2, 3]);
    let last = tagged(&[rule(Period::Each, Reach::Count(1))]);
    assert_eq!(kept(&decide_with(all(0), &last, Guards::default()).expect("it stays")), [0, 2, 3]);
    // Who names one means it, and who lets all of a group go is not asked twice.
    let named = Wish::Named(vec![id(2)]);
    assert_eq!(kept(&decide_with(all(0), &named, Guards::default()).expect("named")), [0, 1, 3]);
    let none = Wish::Policy(Policy { tags: vec![vec!["none".into()]], ..Policy::default() });
    let empty = Guards { allow_empty: true, ..Guards::default() };
    assert_eq!(kept(&decide_with(all(0), &none, empty).expect("asked for")), [3]);
    // By rules that ask a clock, it is the one of the latest time.
    let mut jump = candidates([record(START + DAY), record(START)]);
    jump[0].snapshot.tags = vec!["old".into()];
    let trusted = Guards { trust_times: true, ..Guards::default() };
    let daily = tagged(&[rule(Period::Day, Reach::Count(1))]);
    assert_eq!(kept(&decide_with(jump.clone(), &daily, trusted).expect("it stays")), [0]);
    let result = decide_with(jump, &tagged(&[]), trusted);
    assert!(matches!(result, Err(ForgetError::Newest { snapshot, .. }) if snapshot == id(1)), "{result:?}");
}

#[test]
fn masses_have_to_be_asked_for() {
    let all = |count| candidates((0..count).map(|n| record(START + n)));
    let without_mass = Guards::default();
    assert!(decide_with(all(51), &last(1), without_mass).is_ok(), "50 may go at any time");
    let result = decide_with(all(52), &last(1), without_mass);
    assert!(matches!(result, Err(ForgetError::Mass { forgotten: 51, total: 52 })));
    assert!(decide_with(all(200), &last(100), without_mass).is_ok(), "half of them may go");
    assert!(decide_with(all(52), &last(1), Guards { allow_mass: true, ..without_mass }).is_ok());
}

/// By saying that they are of another host and newer, an appender's snapshots could be kept in the place of that host's.
#[test]
fn an_appenders_snapshots_crowd_out_nobody_elses() {
    let mut all = candidates((0..8).map(|n| record(START + n * DAY)));
    for (writer, candidate) in [(1, 3), (1, 4), (1, 5), (2, 6), (2, 7)] {
        all[candidate].appender = Some(WriterId::from_bytes([writer; 32]));
    }
    let none = GroupBy { host: false, paths: false, tags: false };
    for by in [GroupBy::default(), none] {
        let groups = decide(all.clone(), &last(1), by, &ALL, &Utc, NOW).expect("allowed");
        assert_eq!(kept(&groups), [2, 5, 7]);
        let shown = groups.iter().filter(|group| group.key.to_string().contains("append-only writer"));
        assert_eq!(shown.count(), 2);
    }
}

/// The snapshots by which it was noticed that the times of the first group run backwards.
fn backwards(groups: &[Group]) -> Option<(SnapshotId, SnapshotId)> {
    match groups[0].refusal {
        Some(TimesError::Backwards { earlier, later, .. }) => Some((earlier, later)),
        _ => None,
    }
}

/// kopia #1949: after a clock jump, maintenance deleted live data. Here a clock can make rules refuse to work, no more.
#[test]
fn kopia_1949_clock_jumps_are_noticed_and_named() {
    let daily = policy(&[rule(Period::Day, Reach::Count(2))]);
    // Set back by ten days between the second backup and the third.
    let jump = || candidates([0, 1, -9, -8].map(|day| record(START + day * DAY)));
    let refused = decide_with(jump(), &daily, Guards::default()).expect("the group stays");
    assert_eq!(backwards(&refused), Some((id(1), id(2))));
    assert_eq!(kept(&refused), [0, 1, 2, 3]);
    assert!(refused[0].verdicts.iter().all(|verdict| verdict.reasons == [Reason::TimesNotTrusted]));
    let trusted = Guards { trust_times: true, ..Guards::default() };
    assert_eq!(kept(&decide_with(jump(), &daily, trusted).expect("asked for")), [0, 1]);
    // What needs no clock works with a wrong one.
    assert_eq!(kept(&decide_with(jump(), &last(1), Guards::default()).expect("no clock")), [3]);
    assert!(decide_with(jump(), &Wish::Named(vec![id(0)]), Guards::default()).is_ok());

    let future = || candidates([record(START), record(NOW.seconds + 2 * DAY)]);
    let refused = decide_with(future(), &daily, Guards::default()).expect("the group stays");
    assert!(matches!(refused[0].refusal, Some(TimesError::Future { snapshot, .. }) if snapshot == id(1)));
    assert_eq!(decide_with(future(), &daily, trusted).expect("asked for")[0].refusal, None);
    // A clock here that runs ahead changes nothing: spans count from the newest snapshot.
    let within = policy(&[rule(Period::Each, Reach::Within(Span { days: 1, ..Span::default() }))]);
    let all = candidates([0, 1, 2].map(|day| record(START + day * DAY)));
    assert_eq!(kept(&decide_with(all, &within, Guards::default()).expect("allowed")), [1, 2]);
}

/// kopia #1949 again: the clock is ahead for backups and for whoever forgets, so nothing lies in the future.
#[test]
fn kopia_1949_a_clock_that_is_ahead_for_all_makes_no_rule_take_what_was_before() {
    let day = |day: i64| record(START + day * DAY);
    let within = |days| rule(Period::Day, Reach::Within(Span { days, ..Span::default() }));
    let month = policy(&[rule(Period::Each, Reach::Within(Span { days: 3, ..Span::default() })), within(30)]);
    let ahead = 3650;
    let now = Timestamp { seconds: START + (ahead + 3) * DAY, nanos: 0 };
    let decide_at = |days: &[i64], wish: &Wish, guards| {
        let all = candidates(days.iter().copied().map(day));
        decide(all, wish, GroupBy::default(), &guards, &Utc, now).expect("decided")
    };
    let trusted = Guards { trust_times: true, ..Guards::default() };
    // Also when the clock has been ahead for days, and if there was one before, or two in a row.
    for days in
        [&[0, 1, 2, ahead][..], &[0, 1, 2, ahead, ahead + 1, ahead + 2], &[0, ahead], &[0, 2, 2, ahead]]
    {
        let groups = decide_at(days, &month, Guards::default());
        let first = days.iter().position(|day| *day == ahead).expect("a jump");
        let expected = (id(first - 1), id(first));
        assert!(
            matches!(groups[0].refusal, Some(TimesError::Jump { earlier, later, .. }) if (earlier, later) == expected),
            "{days:?}: {groups:?}"
        );
        assert_eq!(kept(&groups).len(), days.len());
        assert_eq!(kept(&decide_at(days, &month, trusted)), (first..days.len()).collect::<Vec<_>>());
        // No rule that counts takes what was before, and all of it may stay for another reason.
        assert_eq!(
            decide_at(days, &policy(&[rule(Period::Day, Reach::Count(2))]), Guards::default())[0].refusal,
            None
        );
        let both = policy(&[within(30), rule(Period::Each, Reach::Count(9))]);
        assert_eq!(decide_at(days, &both, Guards::default())[0].refusal, None);
    }
    // Who was away for some weeks, or backs up seldom, is no clock that jumped.
    for (days, kept_days) in
        [(&[0, 10, 40, 100][..], &[3][..]), (&[0, 30, 60, 90], &[3]), (&[0, 7, 14, 30], &[1, 2, 3])]
    {
        let groups = decide_at(days, &policy(&[within(25)]), Guards::default());
        assert_eq!((kept(&groups), &groups[0].refusal), (kept_days.to_vec(), &None), "{days:?}");
    }
}

#[test]
fn a_wrong_clock_stops_its_own_group_only() {
    let of = |host: &str, day: i64| Snapshot { hostname: host.into(), ..record(START + day * DAY) };
    let all = || {
        candidates([
            of("a", 0),
            of("ahead", 0),
            of("back", 9),
            of("a", 1),
            of("ahead", 2000),
            of("back", 0),
            of("a", 2),
        ])
    };
    let daily = policy(&[rule(Period::Day, Reach::Count(1))]);
    let groups = decide_with(all(), &daily, Guards::default()).expect("the others are decided");
    assert_eq!(kept(&groups), [1, 2, 4, 5, 6]);
    let refused: Vec<_> =
        groups.iter().map(|group| group.refusal.as_ref().map(TimesError::snapshot)).collect();
    assert_eq!(refused, [None, Some(id(4)), Some(id(5))]);
    assert!(!groups[2].is_stale, "that is not why it stays");
    // In one group with a wrong clock nothing is decided.
    let nothing = GroupBy { host: false, paths: false, tags: false };
    let groups = decide(all(), &daily, nothing, &Guards::default(), &Utc, NOW).expect("the group stays");
    assert_eq!(kept(&groups).len(), 7);
}

/// An append-only host with a clock of tomorrow, or one that was taken over, must not stop what is done about all others.
#[test]
fn an_appender_of_the_future_keeps_its_own_series_only() {
    let mut all = candidates((0..4).map(|day| record(START + day * DAY)));
    let mut tomorrow = candidates([record(NOW.seconds + 2 * DAY)]);
    tomorrow[0].id = id(4);
    tomorrow[0].appender = Some(WriterId::from_bytes([1; 32]));
    all.append(&mut tomorrow);
    let daily = policy(&[rule(Period::Day, Reach::Count(1))]);
    for by in [GroupBy::default(), GroupBy { host: false, paths: false, tags: false }] {
        let groups = decide(all.clone(), &daily, by, &Guards::default(), &Utc, NOW).expect("decided");
        assert_eq!(kept(&groups), [3, 4]);
        let refused: Vec<_> = groups.iter().filter(|group| group.refusal.is_some()).collect();
        assert!(refused.len() == 1 && refused[0].key.appender.is_some(), "{refused:?}");
    }
}

#[test]
fn the_last_ones_of_groups_are_those_that_guards_protect() {
    let partial = |n| Snapshot { partial: true, ..record(START + n) };
    let of = |host: &str, snapshot: Snapshot| Snapshot { hostname: host.into(), ..snapshot };
    let mut all = candidates([
        record(START),
        record(START + 1),
        partial(2),
        of("only partial", partial(3)),
        of("only partial", partial(4)),
        record(START + 5),
    ]);
    all[5].appender = Some(WriterId::from_bytes([1; 32]));
    let by = GroupBy::default();
    assert_eq!(last_of_groups(&all, by).into_iter().collect::<Vec<_>>(), [id(1), id(4), id(5)]);
    // All others may go at once, and none of these after them.
    let others = Wish::Named(vec![id(0), id(2), id(3)]);
    assert!(decide_with(all.clone(), &others, Guards::default()).is_ok());
    for one in [1, 4, 5] {
        let more = Wish::Named(vec![id(0), id(2), id(3), id(one)]);
        let result = decide_with(all.clone(), &more, Guards::default());
        assert!(matches!(result, Err(ForgetError::EmptiesGroup { .. })), "{one}");
    }
}

#[test]
fn what_a_drill_restored_stays_and_says_why() {
    let all = candidates([0, 1, 2].map(|day| record(START + day * DAY)));
    let rules = vec![rule(Period::Each, Reach::Count(1))];
    let wish = Wish::Policy(Policy { rules, drilled: vec![id(0)], ..Policy::default() });
    let groups = decide_with(all, &wish, Guards::default()).expect("allowed");
    assert_eq!(kept(&groups), [0, 2]);
    assert_eq!(groups[0].verdicts[0].reasons, [Reason::Drilled]);
}

#[test]
fn copies_made_late_are_no_clock_jump() {
    let copy = |from: u8, added, day: i64| Snapshot {
        origin: Some(Origin {
            repository: RepositoryId::from_bytes([from; 16]),
            snapshot: id(100),
            added,
            appender: None,
        }),
        ..record(START + day * DAY)
    };
    let daily = policy(&[rule(Period::Day, Reach::Count(2))]);
    // Two days that were missed here came from two other repositories when newer ones were here already.
    let late =
        [record(START + 3 * DAY), copy(1, 1, 0), copy(2, 1, 1), copy(1, 2, 4), record(START + 5 * DAY)];
    let groups = decide_with(candidates(late), &daily, Guards::default()).expect("each clock ran forwards");
    assert_eq!(kept(&groups), [3, 4], "days count, not when copies were made");
    // A clock that jumped where copies are from is noticed here, too.
    let jump = [copy(1, 1, 9), record(START + 9 * DAY), copy(1, 2, 0)];
    let refused = decide_with(candidates(jump), &daily, Guards::default()).expect("the group stays");
    assert_eq!(backwards(&refused), Some((id(0), id(2))));
}

#[test]
fn backups_that_overlap_are_no_clock_jump() {
    let mut long = record(START);
    long.summary.duration_ns = 5 * 3600 * 1_000_000_000;
    let all = || candidates([record(START + 3600), long.clone()]);
    let hourly = policy(&[rule(Period::Hour, Reach::Count(1))]);
    assert_eq!(kept(&decide_with(all(), &hourly, Guards::default()).expect("they overlapped")), [0]);
}

#[test]
fn groups_without_new_snapshots_are_pointed_out() {
    let old = |host: &str, n| Snapshot { hostname: host.into(), ..record(START + n) };
    let all = candidates([old("retired", 0), record(NOW.seconds - DAY)]);
    let groups = decide_with(all, &last(3), Guards::default()).expect("allowed");
    let stale: Vec<_> = groups.iter().map(|group| (group.key.host.as_deref(), group.is_stale)).collect();
    assert_eq!(stale, [(Some("host"), false), (Some("retired"), true)]);
}

#[test]
fn spans_are_read_and_written() {
    let span: Span = "2y5m1w7d3h".parse().expect("a span");
    assert_eq!(span, Span { years: 2, months: 5, days: 14, hours: 3 });
    assert_eq!(span.to_string(), "2y5m14d3h");
    assert_eq!(Span::default().to_string().parse(), Ok(Span::default()));
    for bad in ["", "5", "d", "5x", "5d3", "-1d", "99999999999d", "600000w", "1é"] {
        assert!(bad.parse::<Span>().is_err(), "{bad}");
    }
}
