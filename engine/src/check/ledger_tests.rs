//! The verification ledger as checks write and use it.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::fixture::{Sample, environment, password, sample};
use super::ledger::Verified;
use super::*;
use crate::backend::testing::{Fault, FaultBackend, Operation};
use crate::backend::{Backend, MemoryBackend, ObjectKey};
use crate::format::commit::Change;
use crate::format::ledger::{Ledger, Verification};
use crate::format::tree::Timestamp;
use crate::ids::PackId;
use crate::monitor::Silent;
use crate::repo::Environment;

const DAY: i64 = 86_400;

fn at(seconds: i64) -> Environment {
    Environment {
        now: Arc::new(move || Timestamp { seconds, nanos: 0 }),
        ..environment(seconds.unsigned_abs())
    }
}

/// A recorded check by somebody whose clock says `day`.
fn check_on(backend: &MemoryBackend, day: i64, options: &CheckOptions) -> CheckReport {
    let options = CheckOptions { record: true, threads: 1, ..options.clone() };
    run(&open_on(backend, day), &options, &Silent).expect("the check can be made")
}

fn open_on(backend: &MemoryBackend, day: i64) -> Repository {
    Repository::open(Arc::new(backend.clone()), &password(), at(day * DAY)).expect("opens")
}

fn budget(bytes: u64) -> CheckOptions {
    CheckOptions {
        read_data: ReadData::Oldest { budget: Some(bytes), max_age: None },
        ..CheckOptions::default()
    }
}

fn reading(read_data: ReadData) -> CheckOptions {
    CheckOptions { read_data, ..CheckOptions::default() }
}

fn ledger_of(repository: &Repository) -> Ledger {
    let id = repository.fold().ledger().expect("a ledger");
    let object = repository.backend().read(&ObjectKey::ledger(&id), 1 << 20).expect("stored");
    Ledger::open(object, repository.keys(), &repository.id()).expect("well-formed")
}

fn packs_read_on(repository: &Repository, day: i64) -> BTreeSet<PackId> {
    let ledger = ledger_of(repository);
    let of_day = ledger
        .entries()
        .iter()
        .filter(|entry| entry.method == Method::Read && entry.time.seconds == day * DAY);
    of_day.map(|entry| entry.pack).collect()
}

fn damage_codes(report: &CheckReport) -> Vec<&'static str> {
    report.findings.iter().filter(|finding| finding.is_damage).map(|finding| finding.code).collect()
}

#[test]
fn a_budget_reads_what_was_read_longest_ago() {
    let Sample { backend, packs, .. } = sample();
    let known = |day| readings(&open_on(&backend, day)).expect("readable");
    let sizes = || packs.iter().map(|(pack, _)| pack.size);
    let (bytes, largest) = (sizes().sum(), sizes().max().expect("some"));
    assert_eq!(known(1), Readings { packs: 4, bytes, largest, packs_never_read: 4, ..Readings::default() });
    let mut read = BTreeSet::new();
    // Less than any pack: one a day.
    for day in 1..=4 {
        let report = check_on(&backend, day, &budget(1));
        assert_eq!((report.packs_read, report.packs_never_read), (1, 4 - u64::try_from(day).expect("small")));
        assert_eq!(report.oldest_read.expect("read one").1.seconds, DAY, "the first stays the oldest");
        let today = packs_read_on(&open_on(&backend, day), day);
        assert!(today.iter().all(|pack| read.insert(*pack)), "one that was not read before");
    }
    let all = known(4);
    assert_eq!((all.read.len(), all.read.iter().map(|(_, size)| size).sum::<u64>()), (4, bytes));
    assert_eq!((all.packs_never_read, all.oldest_read.expect("all").1.seconds), (0, DAY));
    assert_eq!(all.last_read.map(|time| time.seconds), Some(4 * DAY));
    assert_eq!(known(2).last_read.map(|time| time.seconds), Some(2 * DAY), "times to come count for nothing");
    assert_eq!(read, packs.iter().map(|(pack, _)| pack.id).collect());
    let first = packs_read_on(&open_on(&backend, 5), 1);
    let report = check_on(&backend, 5, &budget(1));
    assert_eq!(report.oldest_read.expect("all").1.seconds, 2 * DAY);
    assert_eq!(packs_read_on(&open_on(&backend, 5), 5), first, "the turn of the first again");
    // By age: read on days 2, 3, 4 and 5.
    let max_age = Some(Duration::from_secs(3 * DAY.unsigned_abs()));
    let aged = check_on(&backend, 7, &reading(ReadData::Oldest { budget: None, max_age }));
    assert_eq!(aged.packs_read, 3);
    let all = check_on(&backend, 8, &budget(u64::MAX));
    assert_eq!((all.packs_read, all.packs_never_read), (4, 0));
    assert_eq!(backend.objects().iter().filter(|(key, _)| key.as_str().starts_with("ledger/")).count(), 1);
}

#[test]
fn a_clock_that_ran_ahead_puts_nothing_off() {
    let Sample { backend, .. } = sample();
    check_on(&backend, 9000, &reading(ReadData::All));
    let max_age = Some(Duration::from_secs(30 * DAY.unsigned_abs()));
    let due = reading(ReadData::Oldest { budget: None, max_age });
    let report = check_on(&backend, 100, &due);
    assert_eq!(report.packs_read, 4, "a time to come is no time");
    assert_eq!(check_on(&backend, 101, &due).packs_read, 0);
}

#[test]
fn what_was_found_damaged_is_looked_at_until_it_is_sound() {
    let sample = sample();
    let key = sample.pack(0);
    sample.backend.corrupt(&key, |bytes| bytes[100] ^= 1);
    let quick = || check_on(&sample.backend, 3, &CheckOptions::default());
    assert_eq!(damage_codes(&quick()), [] as [&str; 0], "the structure is sound");
    let report = check_on(&sample.backend, 4, &reading(ReadData::All));
    assert_eq!(damage_codes(&report), ["pack-damaged"]);
    let report = quick();
    assert_eq!((report.packs_read, damage_codes(&report)), (1, vec!["pack-damaged"]), "it is remembered");
    let in_doubt = || readings(&open_on(&sample.backend, 5)).expect("readable").packs_in_doubt;
    assert_eq!(in_doubt(), 1);
    sample.backend.corrupt(&key, |bytes| bytes[100] ^= 1);
    let report = quick();
    assert_eq!((report.packs_read, damage_codes(&report)), (1, vec![]), "and looked at again");
    assert_eq!(in_doubt(), 0);
    assert_eq!(quick().packs_read, 0);
}

#[test]
fn hashes_find_what_reading_finds() {
    let sample = sample();
    let hashes = CheckOptions { hashes_only: true, ..reading(ReadData::All) };
    let report = check_on(&sample.backend, 1, &hashes);
    assert_eq!((report.packs_read, report.blobs_verified, report.findings.len()), (4, 0, 0));
    assert_eq!((report.packs_never_read, report.oldest_read), (4, None), "hashing is not reading");
    sample.backend.corrupt(&sample.pack(0), |bytes| bytes[100] ^= 1);
    let report = check_on(&sample.backend, 2, &hashes);
    let read = check_on(&sample.backend, 3, &reading(ReadData::All));
    assert!(!read.hit_files.is_empty());
    assert_eq!((report.findings, report.hit_files), (read.findings, read.hit_files));
}

#[test]
fn a_ledger_that_is_gone_or_altered_is_reported_once() {
    let ways: [fn(&MemoryBackend, &ObjectKey); 3] = [
        |backend, key| backend.delete(key).expect("deleted"),
        |backend, key| backend.corrupt(key, |bytes| bytes[90] ^= 1),
        |backend, key| backend.corrupt(key, |bytes| bytes.truncate(40)),
    ];
    for damage in ways {
        let Sample { backend, .. } = sample();
        check_on(&backend, 1, &reading(ReadData::All));
        let id = open_on(&backend, 1).fold().ledger().expect("a ledger");
        damage(&backend, &ObjectKey::ledger(&id));
        let report = check_on(&backend, 2, &CheckOptions::default());
        assert_eq!((damage_codes(&report), report.packs_never_read), (vec!["ledger-damaged"], 4));
        let report = check_on(&backend, 3, &CheckOptions::default());
        assert_eq!((damage_codes(&report), report.packs_never_read), (vec![], 4), "begun anew");
    }
}

#[test]
fn a_ledger_that_claims_more_than_there_is_is_told_and_gone_by_for_nothing() {
    let Sample { backend, .. } = sample();
    let [never, pruned] = [8, 9].map(|n| PackId::from_bytes([n; 32]));
    let claim = |packs: &[PackId]| {
        let repository = open_on(&backend, 1);
        let time = Timestamp { seconds: DAY, nanos: 0 };
        let read = |pack: &PackId| Verification { pack: *pack, method: Method::Read, is_intact: true, time };
        let news: Vec<_> = packs.iter().map(read).collect();
        let object = Ledger::default().after(&news, &|_| true).seal(&repository.sealer()).expect("short");
        let ledger = crate::format::ledger::id(&object);
        backend.create(&ObjectKey::ledger(&ledger), &object).expect("stored");
        let replaced = |previous| vec![Change::LedgerReplaced { ledger, previous }];
        repository.commit(&mut |fold| Ok(replaced(fold.ledger()))).expect("committed");
        ObjectKey::ledger(&ledger).to_string()
    };
    let commit = |change: Change| {
        open_on(&backend, 1).commit(&mut |_| Ok(vec![change.clone()])).expect("committed");
    };
    commit(Change::PacksCondemned { packs: vec![pruned] });
    commit(Change::PacksRemoved { packs: vec![pruned] });
    let told = |report: &CheckReport| -> Vec<_> {
        report
            .findings
            .iter()
            .map(|finding| (finding.code, finding.object.clone(), finding.is_damage))
            .collect()
    };
    claim(&[pruned]);
    let quick = CheckOptions { threads: 1, ..CheckOptions::default() };
    let look = || run(&open_on(&backend, 2), &quick, &Silent).expect("checked");
    assert!(told(&look()).is_empty(), "a prune took it away");
    let object = claim(&[pruned, never]);
    let report = look();
    assert_eq!(told(&report), [("ledger-untrue", object.clone(), false)]);
    assert!(report.findings[0].message.contains(&never.to_string()), "{report:?}");
    assert_eq!((report.packs, report.packs_never_read), (4, 4), "it lends nothing to others");
    let report = check_on(&backend, 3, &reading(ReadData::Oldest { budget: None, max_age: None }));
    assert_eq!((told(&report).len(), report.packs_read), (1, 4));
    assert!(ledger_of(&open_on(&backend, 3)).of(&never).is_empty(), "it is left out");
    assert!(told(&look()).is_empty());
}

#[test]
fn checks_at_the_same_time_keep_what_either_found() {
    let Sample { backend, .. } = sample();
    let slow = open_on(&backend, 1);
    let options = reading(ReadData::No);
    let context = Context::new(&slow, &options, &Silent);
    let fold = slow.fold();
    let segments = segments::check(&context, &fold).expect("listed");
    let mut verified = Verified::load(&context, &fold);
    let mine = segments.packs[0].entry.id;
    verified.add(Method::Read, [(mine, true)]);
    // Somebody else reads the other three, and forgets an object.
    for day in 2..=3 {
        check_on(&backend, day, &budget(1));
    }
    backend.plant(&ObjectKey::ledger(&crate::ids::LedgerId::from_bytes([7; 32])), b"left behind");
    verified.write(&slow, &segments.packs).expect("written");
    let ledger = ledger_of(&slow);
    let read: BTreeSet<_> = ledger
        .entries()
        .iter()
        .filter(|entry| entry.method == Method::Read)
        .map(|entry| entry.pack)
        .collect();
    assert!(read.contains(&mine) && read.len() >= 2, "{read:?}");
    assert_eq!(backend.objects().iter().filter(|(key, _)| key.as_str().starts_with("ledger/")).count(), 1);
}

#[test]
fn storage_that_takes_nothing_can_still_be_checked() {
    let sample = sample();
    let backend = FaultBackend::new(sample.backend.clone());
    let faults = backend.faults();
    let repository = Repository::open(Arc::new(backend), &password(), at(DAY)).expect("opens");
    faults.inject(Fault::nth_of(Operation::Create, 1, io::ErrorKind::ReadOnlyFilesystem).lasting());
    let options = CheckOptions { record: true, ..reading(ReadData::All) };
    let report = run(&repository, &options, &Silent).expect("checked");
    assert_eq!((report.packs_read, report.findings.len()), (4, 0));
    assert!(report.ledger_error.expect("said").contains("ledger/"), "which object");
    assert_eq!(repository.fold().ledger(), None);
}
