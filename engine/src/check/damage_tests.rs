//! The damage matrix: every kind of object, damaged in every way, is refused on opening or named by the check.

use super::fixture::{Sample, check_all, environment, open, password, sample, sample_of};
use super::*;
use crate::backend::{Backend, Folder, MemoryBackend, ObjectKey};
use crate::monitor::Silent;
use crate::parity::{self, AddOptions};

/// What was done to an object.
type Damaging = Box<dyn Fn(&MemoryBackend, &ObjectKey)>;

fn change(change: impl Fn(&mut Vec<u8>) + 'static) -> Damaging {
    Box::new(move |backend, key| backend.corrupt(key, |bytes| change(bytes)))
}

/// Every way to damage an object, given another of its kind and a foreign one.
fn damages(sibling: &ObjectKey, foreign: Vec<u8>) -> Vec<(&'static str, Damaging)> {
    let (swapped, replayed) = (sibling.clone(), sibling.clone());
    let flip = |at: fn(usize) -> usize| {
        change(move |bytes| {
            let at = at(bytes.len());
            bytes[at] ^= 0x10;
        })
    };
    vec![
        ("flip in the header", flip(|len| len.min(80) / 2)),
        ("flip in the middle", flip(|len| len / 2)),
        ("flip at the end", flip(|len| len - 1)),
        ("cut by a byte", change(|bytes| bytes.truncate(bytes.len() - 1))),
        ("cut to half", change(|bytes| bytes.truncate(bytes.len() / 2))),
        ("cut to nothing", change(Vec::clear)),
        ("longer by a byte", change(|bytes| bytes.push(0))),
        ("gone", Box::new(|backend, key| backend.delete(key).expect("deleted"))),
        (
            "swapped",
            Box::new(move |backend, key| {
                let both = [key, &swapped].map(|key| backend.read(key, u64::MAX).expect("there"));
                backend.plant(key, &both[1]);
                backend.plant(&swapped, &both[0]);
            }),
        ),
        (
            "another of its kind",
            Box::new(move |backend, key| {
                let other = backend.read(&replayed, u64::MAX).expect("there");
                backend.plant(key, &other);
            }),
        ),
        ("of another repository", Box::new(move |backend, key| backend.plant(key, &foreign))),
    ]
}

/// Each kind of object: one to damage, another of its kind, and the like of another repository.
fn kinds(sample: &Sample, other: &Sample) -> Vec<(&'static str, ObjectKey, ObjectKey, Vec<u8>)> {
    let both = |what, at: &dyn Fn(&Sample) -> [ObjectKey; 2]| {
        let ([key, sibling], [foreign, _]) = (at(sample), at(other));
        (what, key, sibling, other.backend.read(&foreign, u64::MAX).expect("there"))
    };
    let in_folder = |sample: &Sample, folder, at: [usize; 2]| {
        let keys = sample.keys(folder);
        at.map(|at| keys[at].clone())
    };
    vec![
        // There is one only: a keyslot stands in for another.
        both("config", &|sample| [ObjectKey::config(), sample.keys("keys/")[0].clone()]),
        both("first keyslot", &|sample| in_folder(sample, "keys/", [0, 1])),
        both("second keyslot", &|sample| in_folder(sample, "keys/", [1, 0])),
        both("first commit", &|_| [ObjectKey::log(1), ObjectKey::log(3)]),
        both("third commit", &|_| [ObjectKey::log(3), ObjectKey::log(2)]),
        both("last commit", &|_| [ObjectKey::log(4), ObjectKey::log(3)]),
        both("older state", &|_| [ObjectKey::state(2), ObjectKey::state(4)]),
        both("newer state", &|_| [ObjectKey::state(4), ObjectKey::state(2)]),
        both("data pack", &|sample| [sample.pack(0), sample.pack(2)]),
        both("metadata pack", &|sample| [sample.pack(1), sample.pack(3)]),
        both("pack of another kind", &|sample| [sample.pack(0), sample.pack(1)]),
        both("segment", &|sample| in_folder(sample, "index/", [0, 1])),
    ]
}

fn names(report: &CheckReport, key: &ObjectKey) -> bool {
    report.findings.iter().any(|finding| finding.object == key.as_str() && finding.is_damage)
}

#[test]
fn a_damaged_log_is_read_as_far_as_it_goes() {
    // Commits: first keyslot, second keyslot, first snapshot, second snapshot.
    for (seq, snapshots) in [(1, [0, 1].as_slice()), (2, &[0, 1]), (3, &[1]), (4, &[0])] {
        for (how, damage) in [
            (
                "gone",
                Box::new(|backend: &MemoryBackend, key: &ObjectKey| backend.delete(key).expect("deleted"))
                    as Damaging,
            ),
            ("flipped", change(|bytes| bytes[90] ^= 1)),
        ] {
            let sample = sample();
            for key in sample.keys("state/") {
                sample.backend.delete(&key).expect("deleted");
            }
            damage(&sample.backend, &ObjectKey::log(seq));
            let opened = open(&sample.backend);
            // The last one may have been cut off or never have been: all before it is in order.
            assert_eq!(opened.is_err(), seq != 4, "{seq} {how}: {opened:?}");
            let salvaged =
                Repository::open_salvaged(Arc::new(sample.backend.clone()), &password(), environment(98))
                    .expect("readable");
            assert_eq!(salvaged.void_entries().is_empty(), (seq, how) == (4, "gone"), "{seq} {how}");
            let found: Vec<_> =
                salvaged.snapshots().expect("readable").into_iter().map(|(id, _)| id).collect();
            let expected: Vec<_> = snapshots.iter().map(|at| sample.snapshots[*at]).collect();
            assert_eq!(found, expected, "{seq} {how}");
            let report = check_all(&salvaged);
            let is_about_log = |finding: &Damage| {
                finding.code.starts_with("log-")
                    || finding.code == "keyslot-unlisted"
                    || finding.code == "segment-unlisted"
            };
            assert!(report.findings.iter().all(is_about_log), "{seq} {how}: {:?}", report.findings);
            assert_eq!(report.hit_files, [], "{seq} {how}");
            for id in &expected {
                let (_, snapshot) = salvaged.find_snapshot(&id.to_string()).expect("there");
                let folder = tempfile::tempdir().expect("a folder");
                let options = crate::restore::RestoreOptions::default();
                let target = folder.path().join("target");
                let restored = crate::restore::run(&salvaged, &snapshot, b"", &target, &options, &Silent);
                // The sample has one file whose chunks lie across holes, which readers refuse.
                assert_eq!(restored.expect("begun").errors, 1, "{seq} {how}");
            }
            let refused = salvaged.commit(&mut |_| Ok(vec![]));
            assert!(matches!(refused, Err(RepositoryError::OnlyReadable { .. })));
        }
    }
}

#[test]
fn a_lost_log_is_damage_although_nothing_else_is() {
    for with_states in [true, false] {
        let sample = sample();
        let folders = if with_states { ["log/"].as_slice() } else { &["log/", "state/"] };
        for key in folders.iter().flat_map(|folder| sample.keys(folder)) {
            sample.backend.delete(&key).expect("deleted");
        }
        let salvaged =
            Repository::open_salvaged(Arc::new(sample.backend.clone()), &password(), environment(98))
                .expect("readable");
        let report = check_all(&salvaged);
        assert!(
            report.findings.iter().any(|finding| finding.is_damage && finding.code.starts_with("log-")),
            "{:?}",
            report.findings
        );
    }
}

/// A state may hide from other commands that later commits follow another entry; no note can make that good.
#[test]
fn an_entry_that_was_altered_behind_others_cannot_be_accepted_as_lost() {
    let sample = sample();
    sample.backend.corrupt(&ObjectKey::log(3), |bytes| bytes[90] ^= 1);
    let repository = open(&sample.backend).expect("by the state of entry 4");
    let refused = crate::repair::log::accept_loss(&repository, 3).expect_err("others follow it");
    assert!(refused.to_string().contains("commit 4 follows"), "{refused}");
    let refused = crate::repair::log::accept_loss(&repository, 99).expect_err("there is none");
    assert!(refused.to_string().contains("ends with 4"), "{refused}");
    assert!(sample.backend.stat(&ObjectKey::log(5)).is_err(), "nothing was committed");
}

#[test]
fn nothing_is_committed_on_top_of_an_altered_entry() {
    let sample = sample();
    let newest = ObjectKey::log(4);
    let whole = sample.backend.read(&newest, u64::MAX).expect("there");
    sample.backend.corrupt(&newest, |bytes| bytes[90] ^= 1);
    for key in sample.keys("state/") {
        sample.backend.delete(&key).expect("deleted");
    }
    let repository = open(&sample.backend).expect("the entries before it are in order");
    let options =
        CheckOptions { read_data: ReadData::All, record: true, threads: 1, ..CheckOptions::default() };
    let report = run(&repository, &options, &Silent).expect("checked");
    assert!(report.is_damaged());
    assert!(sample.backend.stat(&ObjectKey::log(5)).is_err(), "what was verified was written down");
    sample.backend.plant(&newest, &whole);
    let report = check_all(&open(&sample.backend).expect("whole again"));
    assert!(!report.findings.iter().any(|finding| finding.code.starts_with("log-")), "{:?}", report.findings);
}

#[test]
fn every_object_damaged_in_every_way_is_refused_or_named() {
    let (sample, other) = (sample(), sample_of(2));
    let mut clean = Vec::new();
    for (kind, key, sibling, foreign) in kinds(&sample, &other) {
        for (how, damage) in damages(&sibling, foreign) {
            let backend = sample.backend.snapshot();
            damage(&backend, &key);
            match open(&backend) {
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.len() > 20, "{kind}, {how}: {text}");
                    // What is no config at all may be no repository at all; a password that opens no other
                    // keyslot may be wrong, so the damaged one is named beside.
                    let is_clear = error.is_damage()
                        || kind == "config"
                        || how == "gone" && matches!(error, RepositoryError::WrongPassword { .. })
                        || text.contains(key.as_str());
                    assert!(is_clear, "{kind}, {how}: {text}");
                }
                Ok(repository) => {
                    let report = check_all(&repository);
                    if report.findings.is_empty() {
                        clean.push((kind, how));
                    } else {
                        assert!(names(&report, &key), "{kind}, {how}: {:?}", report.findings);
                    }
                }
            }
        }
    }
    // States are derived, nothing needs them.
    assert_eq!(clean, [("older state", "gone"), ("newer state", "gone")]);
}

#[test]
fn damage_that_comes_while_the_repository_is_open_is_named_too() {
    let (sample, other) = (sample(), sample_of(2));
    let whole = sample.backend.objects();
    for (kind, key, sibling, foreign) in kinds(&sample, &other) {
        for (how, damage) in damages(&sibling, foreign) {
            damage(&sample.backend, &key);
            let report = check_all(&sample.repository);
            let is_harmless = how == "gone" && kind.ends_with("state");
            assert!(is_harmless != names(&report, &key), "{kind}, {how}: {:?}", report.findings);
            for (key, bytes) in &whole {
                sample.backend.plant(key, bytes);
            }
        }
    }
    assert_eq!(check_all(&sample.repository).findings, []);
}

#[test]
fn a_lost_log_is_not_begun_anew() {
    let sample = sample();
    for keep in [2, 4, 5] {
        let backend = sample.backend.snapshot();
        (1..keep).for_each(|seq| backend.delete(&ObjectKey::log(seq)).expect("deleted"));
        for state in [ObjectKey::state(2), ObjectKey::state(4)] {
            backend.delete(&state).expect("deleted");
        }
        let before = backend.objects();
        let error = open(&backend).expect_err("the log is lost");
        assert!(error.is_damage(), "{error}");
        assert!(backend.objects() == before, "nothing was written: {error}");
    }
}

/// What an opening reads, opened after it was damaged; `None` for what it does not read, and where it is not wanted although it
/// takes a key to be derived.
fn open_anew(
    sample: &Sample,
    key: &ObjectKey,
    is_wanted: bool,
) -> Option<Result<Repository, RepositoryError>> {
    let again = || sample.repository.open_again(Arc::new(sample.backend.clone()), environment(99));
    match key.folder() {
        // Whoever has it open does not ask for these again.
        None | Some(Folder::Keys) => is_wanted.then(|| open(&sample.backend)),
        Some(Folder::Log | Folder::State | Folder::Index) => Some(again()),
        _ => None,
    }
}

/// One flip for each byte of every object, each time another bit; of segments one in some bytes, since all of
/// their bytes are covered in the same way. With `STRONGROOM_ALL_BITS=1` every bit of every object. Whoever has the
/// repository open finds it, and so does who opens it afterwards, unless it does not open and says why: that is tried
/// with each fourth byte of what takes a key to be derived, and with all others. Two threads share the work.
#[test]
fn every_flipped_byte_is_found() {
    let all_bits = std::env::var_os("STRONGROOM_ALL_BITS").is_some();
    let flip_those_of = |parity: usize| {
        let sample = sample();
        let (mut count, mut refused, mut opened) = (0, 0, 0);
        for (key, bytes) in sample.backend.objects() {
            let step = if !all_bits && key.as_str().starts_with("index/") { 34 } else { 2 };
            for at in (parity..bytes.len()).step_by(step) {
                let bits = if all_bits { 0..8 } else { at / 2 % 8..at / 2 % 8 + 1 };
                for bit in bits {
                    sample.backend.corrupt(&key, |bytes| bytes[at] ^= 1 << bit);
                    let report = check_all(&sample.repository);
                    assert!(names(&report, &key), "{key}, byte {at}, bit {bit}: {:?}", report.findings);
                    match open_anew(&sample, &key, all_bits || at % 8 < 2) {
                        None => {}
                        Some(Ok(repository)) => {
                            let report = check_all(&repository);
                            assert!(names(&report, &key), "{key}, byte {at}, bit {bit}: {report:?}");
                            opened += 1;
                        }
                        Some(Err(error)) => {
                            let text = error.to_string();
                            // What says that a newer version wrote it may be right, and a config of another
                            // repository may be a whole one.
                            let may_be_whole = text.contains("newer") || key.folder().is_none();
                            let is_clear = error.is_damage() || may_be_whole || text.contains(key.as_str());
                            assert!(is_clear, "{key}, byte {at}, bit {bit}: {text}");
                            refused += 1;
                        }
                    }
                    sample.backend.plant(&key, &bytes);
                    count += 1;
                }
            }
        }
        [count, refused, opened]
    };
    let [count, refused, opened] = std::thread::scope(|scope| {
        let threads = [0, 1].map(|parity| scope.spawn(move || flip_those_of(parity)));
        let [one, other] = threads.map(|thread| thread.join().expect("all were found"));
        [0, 1, 2].map(|at: usize| -> usize { one[at] + other[at] })
    });
    println!("{count} flips, anew {opened} opened, {refused} refused");
    assert!(count > 5000 && refused > 500 && opened > 500, "{count}, {refused} refused, {opened} opened");
    if all_bits {
        let bits: usize = sample().backend.objects().iter().map(|(_, bytes)| 8 * bytes.len()).sum();
        assert_eq!(count, bits, "every bit of the sample was flipped");
        println!(
            "{count} flipped bits, each found and its object named; anew {opened} opened, {refused} refused"
        );
    }
}

/// The like of [`sample`] with a verification ledger, and parity of everything.
fn covered_sample() -> Sample {
    let sample = sample();
    let record =
        CheckOptions { read_data: ReadData::All, record: true, threads: 1, ..CheckOptions::default() };
    run(&sample.repository, &record, &Silent).expect("the check can be made");
    let options = AddOptions { threads: 1, ..AddOptions::default() };
    let report = parity::add(&sample.repository, &options, &Silent).expect("added");
    assert!(report.damaged.is_empty() && report.added > 10, "{report:?}");
    assert_eq!(sample.keys("ledger/").len(), 1);
    sample
}

/// The same beside a ledger and parity: whatever is flipped is named, and what there is parity of is told to be repairable, whichever
/// bit it is. Parity itself is no data, but what is wrong with it is told. Flips are one of each so many bytes; with `STRONGROOM_ALL_BITS=1` every
/// bit of what parity is of, and every bit of each eighth byte of parity.
#[test]
fn beside_a_ledger_and_parity_every_flipped_byte_is_found_and_can_be_made_good() {
    let all_bits = std::env::var_os("STRONGROOM_ALL_BITS").is_some();
    let flip_those_of = |half: usize| {
        let sample = covered_sample();
        let (mut flipped, mut repairable) = (0, 0);
        for (key, bytes) in sample.backend.objects() {
            let is_parity = key.folder() == Some(Folder::Parity);
            let step = match (all_bits, is_parity) {
                (true, false) => 2,
                (true, true) => 16,
                (false, false) => 46,
                (false, true) => 962,
            };
            let has_parity =
                crate::sidecar::key_of(&key).is_some_and(|sidecar| sample.backend.stat(&sidecar).is_ok());
            for at in (half * step / 2..bytes.len()).step_by(step) {
                let bits = if all_bits { 0..8 } else { at / 2 % 8..at / 2 % 8 + 1 };
                for bit in bits {
                    sample.backend.corrupt(&key, |bytes| bytes[at] ^= 1 << bit);
                    let report = check_all(&sample.repository);
                    let told = |code: &str| {
                        let is_it = |one: &Damage| one.object == key.as_str() && one.code == code;
                        report.findings.iter().any(is_it)
                    };
                    let is_told = if is_parity { told("parity-damaged") } else { names(&report, &key) };
                    assert!(is_told, "{key}, byte {at}, bit {bit}: {:?}", report.findings);
                    if has_parity {
                        assert!(told("repairable"), "{key}, byte {at}, bit {bit}: {:?}", report.findings);
                        repairable += 1;
                    }
                    sample.backend.plant(&key, &bytes);
                    flipped += 1;
                }
            }
        }
        (flipped, repairable)
    };
    let counts: Vec<(usize, usize)> = std::thread::scope(|scope| {
        let threads = [0, 1].map(|half| scope.spawn(move || flip_those_of(half)));
        threads.map(|thread| thread.join().expect("all were found")).into()
    });
    let (flipped, repairable) = counts.iter().fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    assert!(repairable > 200 && flipped > repairable, "{flipped} flips, {repairable} with parity");
    if all_bits {
        println!("{flipped} flipped bits beside parity, each told, and {repairable} of them repairable");
    }
}
