//! Logs with entries that do not count, that are not understood, and that were exchanged.

use super::*;
use crate::backend::{Backend, Created, MemoryBackend, ObjectKey};
use crate::crypto::keys::SecretKey;
use crate::crypto::{KeySet, RootSecret, SeededEntropy};
use crate::format::commit::{self, Change, Commit, SegmentInfo, WriterKey};
use crate::format::header::Sealer;
use crate::format::record;
use crate::format::tree::Timestamp;
use crate::ids::{BlobId, CommitHash, KeyslotId, PackId, RepositoryId, SegmentId, SnapshotId, WriterId};

struct Log {
    backend: MemoryBackend,
    keys: KeySet,
    repository: RepositoryId,
    entropy: SeededEntropy,
    last: u64,
    head: CommitHash,
}

fn writer(n: u8) -> WriterKey {
    WriterKey::new(&SecretKey::from_bytes([n; 32]))
}

fn added(n: u8, writer: WriterId) -> Change {
    Change::KeyslotAdded { keyslot: KeyslotId::from_bytes([n; 32]), writer, label: String::new() }
}

const CONFIG: [u8; 32] = [1; 32];

impl Log {
    fn empty() -> Self {
        Self {
            backend: MemoryBackend::new(),
            keys: KeySet::derive(&RootSecret::from_bytes([7; 32])),
            repository: RepositoryId::from_bytes([9; 16]),
            entropy: SeededEntropy::new(1),
            last: 0,
            head: CommitHash::from_bytes(CONFIG),
        }
    }

    /// A log whose first commit admits writer 1.
    fn new() -> Self {
        let mut log = Self::empty();
        log.commit(1, vec![added(1, writer(1).id())]);
        log
    }

    fn put(&mut self, object: &[u8]) {
        self.last += 1;
        self.head = commit::hash(object);
        assert!(matches!(self.backend.create(&ObjectKey::log(self.last), object), Ok(Created::New)));
    }

    fn next(&self, changes: Vec<Change>) -> Commit {
        Commit {
            seq: self.last + 1,
            previous: self.head,
            time: Timestamp::default(),
            host: String::new(),
            user: String::new(),
            program: String::new(),
            changes,
        }
    }

    fn sealed(&self, by: u8, body: Vec<u8>) -> Vec<u8> {
        let sealer = Sealer { keys: &self.keys, repository: &self.repository, entropy: &self.entropy };
        Commit::seal_body(body, &writer(by), &sealer).expect("short")
    }

    fn commit(&mut self, by: u8, changes: Vec<Change>) {
        let object = self.sealed(by, record::encode(&self.next(changes)));
        self.put(&object);
    }

    /// Puts a commit with a change that this version does not know.
    fn unknown_change(&mut self, by: u8) {
        let mut body = record::encode(&self.next(vec![Change::PacksCondemned { packs: Vec::new() }]));
        let at = body.windows(14).position(|bytes| bytes == b"packs_condemne").expect("a change");
        body[at] = b'q';
        let object = self.sealed(by, body);
        self.put(&object);
    }

    /// Numbers of the entries that do not count, and the fold.
    fn read(&self) -> Result<(Vec<u64>, Fold), LogError> {
        let mut voids = Vec::new();
        let config = CommitHash::from_bytes(CONFIG);
        let fold = read_all(&self.backend, &self.keys, &self.repository, config, &mut |entry| {
            voids.extend(entry.err().map(|void| void.seq));
        })?;
        Ok((voids, fold))
    }
}

fn note(text: &str) -> Vec<Change> {
    vec![Change::Note { kind: "drill".into(), record: text.as_bytes().to_vec().into() }]
}

/// Whoever remembers what was said until then reads what was said since, and nothing that may not count.
#[test]
fn what_was_said_since_an_entry_is_read_without_those_before_it() {
    let mut log = Log::new();
    log.commit(1, note("a"));
    let known = (log.last, log.head);
    let since = |log: &Log, known| {
        let (_, fold) = log.read().expect("in order");
        let commits = read_since(&log.backend, &log.keys, &log.repository, &fold, known).expect("readable");
        commits.map(|commits| commits.into_iter().map(|commit| commit.changes).collect::<Vec<_>>())
    };
    assert_eq!(since(&log, known), Some(Vec::new()));
    log.commit(1, note("b"));
    log.commit(1, note("c"));
    assert_eq!(since(&log, known), Some(vec![note("b"), note("c")]));
    assert_eq!(since(&log, (known.0, CommitHash::from_bytes([3; 32]))), None, "another log");
    assert_eq!(since(&log, (99, known.1)), None, "a log that was longer");
    assert_eq!(since(&log, (log.last, known.1)), None, "another log, of the same length");
    let end = (log.last, log.head);
    let changes: [fn(&mut Log); 4] = [
        |log| log.put(b"junk"),
        |log| log.commit(2, note("of nobody who may write")),
        |log| log.commit(1, vec![added(2, writer(2).id())]),
        |log| log.commit(1, [note("d"), vec![Change::PacksCondemned { packs: pack(1) }]].concat()),
    ];
    for change in changes {
        let mut other = Log::new();
        for text in ["a", "b", "c"] {
            other.commit(1, note(text));
        }
        let end = (other.last, other.head);
        change(&mut other);
        assert_eq!(since(&other, end), None);
        let later = (other.last, other.head);
        other.commit(1, note("later"));
        assert_eq!(since(&other, later), Some(vec![note("later")]), "that it may not count is over");
    }
    assert_eq!(since(&log, end), Some(Vec::new()));
    let at_work = Change::Note { kind: crate::format::note::AT_WORK_NOTE.into(), record: Vec::new().into() };
    let stored = vec![at_work, Change::PacksCondemned { packs: pack(1) }];
    log.commit(1, stored.clone());
    assert_eq!(since(&log, end), Some(vec![stored]), "that a backup is at work stands beside what it stored");
}

fn pack(n: u8) -> Vec<PackId> {
    vec![PackId::from_bytes([n; 32])]
}

#[test]
fn entries_that_do_not_verify_are_void_and_keep_their_number() {
    let mut log = Log::new();
    log.put(b"junk");
    log.commit(2, vec![added(2, writer(2).id())]);
    let elsewhere = log.sealed(1, record::encode(&Commit { seq: 99, ..log.next(Vec::new()) }));
    log.put(&elsewhere);
    log.unknown_change(2);
    log.commit(1, vec![Change::PacksCondemned { packs: pack(5) }]);
    let (voids, fold) = log.read().expect("the last commit is in order");
    assert_eq!(voids, [2, 3, 4, 5]);
    assert_eq!(fold.condemned().collect::<Vec<_>>(), [(&pack(5)[0], 6)]);
}

#[test]
fn what_a_newer_version_wrote_stops_the_reader() {
    let mut log = Log::new();
    log.unknown_change(1);
    log.commit(1, Vec::new());
    assert!(matches!(log.read(), Err(LogError::NotUnderstood { seq: 2, .. })));

    // A version digit, a key mode, a flag, an epoch.
    for at in [6, 9, 10, 12] {
        let mut log = Log::new();
        let mut object = log.sealed(1, record::encode(&log.next(Vec::new())));
        object[at] ^= 2;
        log.put(&object);
        assert!(matches!(log.read(), Err(LogError::NotUnderstood { seq: 2, .. })), "byte {at}");
    }
    // Another kind of object in this place is just wrong.
    let mut log = Log::new();
    let mut object = log.sealed(1, record::encode(&log.next(Vec::new())));
    object[8] = 4;
    log.put(&object);
    assert_eq!(log.read().expect("a void entry").0, [2]);
}

#[test]
fn no_later_commit_is_a_first_one() {
    let mut log = Log::empty();
    log.put(b"junk");
    log.commit(1, vec![added(1, writer(1).id())]);
    let (voids, fold) = log.read().expect("readable");
    assert_eq!((voids.as_slice(), fold.keyslots().count()), (&[1, 2][..], 0));
}

#[test]
fn an_exchanged_void_entry_breaks_the_chain() {
    let mut log = Log::new();
    log.put(b"junk");
    log.commit(1, Vec::new());
    assert!(log.read().is_ok());
    let key = ObjectKey::log(2);
    log.backend.delete(&key).expect("it is there");
    log.backend.create(&key, b"other junk").expect("the slot is free");
    assert!(matches!(log.read(), Err(LogError::Chain { seq: 3, .. })));
}

#[test]
fn notes_change_nothing_whatever_their_kind() {
    let mut log = Log::new();
    let before = log.read().expect("in order").1.to_state();
    log.commit(1, vec![Change::Note { kind: "of tomorrow".into(), record: b"\xc1".to_vec().into() }]);
    let (voids, fold) = log.read().expect("in order");
    assert!(voids.is_empty());
    let after = crate::format::state::State { seq: before.seq, head: before.head, ..fold.to_state() };
    assert_eq!(after, before);
}

/// A snapshot whose record nobody reads here.
fn snapshot(n: u8) -> SnapshotId {
    SnapshotId::new(BlobId::from_bytes([n; 32]))
}

#[test]
fn a_held_snapshot_cannot_be_forgotten() {
    let mut log = Log::new();
    let add = |n| Change::SnapshotAdded { snapshot: snapshot(n), record: b"record".to_vec().into() };
    let hold = |n, reason: &str| Change::SnapshotHeld { snapshot: snapshot(n), reason: reason.into() };
    let release = |n| Change::SnapshotReleased { snapshot: snapshot(n), reason: "done".into() };
    let forget = |n| Change::SnapshotForgotten { snapshot: snapshot(n), reason: "policy".into() };
    log.commit(1, vec![add(1), add(2), hold(1, "audit")]);
    log.commit(1, vec![forget(2), forget(1)]); // 3: void as a whole
    log.commit(1, vec![hold(1, "court order")]);
    log.commit(1, vec![hold(3, "not there")]); // 5
    log.commit(1, vec![release(2)]); // 6
    let (voids, fold) = log.read().expect("readable");
    assert_eq!(voids, [3, 5, 6]);
    let holds = |fold: &Fold| fold.snapshots().map(|entry| entry.hold.clone()).collect::<Vec<_>>();
    assert_eq!(holds(&fold), [Some("court order".to_owned()), None]);
    assert_eq!(Fold::from_state(fold.to_state()), fold, "a state keeps holds");
    log.commit(1, vec![release(1)]);
    log.commit(1, vec![forget(1)]);
    let (voids, fold) = log.read().expect("readable");
    assert_eq!((voids.len(), holds(&fold)), (3, vec![None]));
}

#[test]
fn parity_is_wanted_until_it_is_not() {
    let mut log = Log::new();
    let wanted = |log: &Log| log.read().expect("readable").1.parity().map(|overhead| overhead.tenths());
    for (number, (overhead, expected)) in
        [(30, Some(30)), (1000, Some(1000)), (0, None), (5, Some(5))].iter().enumerate()
    {
        log.commit(1, vec![Change::ParitySet { overhead: *overhead }]);
        assert_eq!(wanted(&log), *expected, "{number}");
    }
    log.commit(1, vec![Change::ParitySet { overhead: 1001 }]);
    let (voids, fold) = log.read().expect("readable");
    assert_eq!((voids.as_slice(), wanted(&log)), (&[6][..], Some(5)));
    assert_eq!(Fold::from_state(fold.to_state()), fold, "a state keeps it");
}

#[test]
fn room_is_kept_free_until_it_is_not() {
    let mut log = Log::new();
    let most = commit::RESERVE_LEN_MAX;
    for (bytes, expected) in [(5, Some(5)), (most, Some(most)), (0, None), (7, Some(7))] {
        log.commit(1, vec![Change::ReserveSet { bytes }]);
        assert_eq!(log.read().expect("readable").1.reserve(), expected);
    }
    log.commit(1, vec![Change::ReserveSet { bytes: most + 1 }]);
    let (voids, fold) = log.read().expect("readable");
    assert_eq!((voids.as_slice(), fold.reserve()), (&[6][..], Some(7)));
    assert_eq!(Fold::from_state(fold.to_state()), fold, "a state keeps it");
}

#[test]
fn only_a_segment_outside_the_index_can_be_dropped() {
    let mut log = Log::new();
    let id = |n| SegmentId::from_bytes([n; 32]);
    let info = SegmentInfo { segment: id(1), blobs: 1, packs: 1, bytes: 1 };
    log.commit(1, vec![Change::SegmentsReplaced { added: vec![info], removed: Vec::new() }]);
    log.commit(1, vec![Change::SegmentsDropped { segments: vec![id(2)] }]);
    log.commit(1, vec![Change::SegmentsDropped { segments: vec![id(2), id(1)] }]);
    let (voids, fold) = log.read().expect("readable");
    assert_eq!((voids.as_slice(), fold.segments().count()), (&[4][..], 1));
}

#[test]
fn what_is_there_is_not_added_again() {
    let mut log = Log::new();
    log.commit(1, vec![Change::PacksCondemned { packs: pack(5) }]);
    log.commit(1, vec![Change::PacksCondemned { packs: pack(5) }]);
    assert_eq!(log.read().expect("in order").1.condemned().next(), Some((&pack(5)[0], 2)));
    log.commit(1, vec![Change::PacksRescued { packs: pack(5) }, Change::PacksRescued { packs: pack(6) }]);
    log.commit(1, vec![Change::PacksCondemned { packs: pack(5) }]);
    assert_eq!(log.read().expect("in order").1.condemned().next(), Some((&pack(5)[0], 5)));
    // But a commit that takes away what is not there does not fit, as a whole.
    log.commit(1, vec![Change::PacksRescued { packs: pack(5) }, Change::PacksRemoved { packs: pack(5) }]);
    let (voids, fold) = log.read().expect("readable");
    assert_eq!((voids.as_slice(), fold.condemned().count()), (&[6][..], 1));
}

impl Log {
    fn head(&self) -> Head {
        Head { seq: self.last, hash: self.head }
    }

    /// Whether the log, with its end where it is now, passes through a head.
    fn verify(&self, expected: &Head) -> Result<(), HeadError> {
        verify_head(&self.backend, &self.keys, &self.repository, expected, &self.head())
    }

    /// The log with its end cut off after `last` entries.
    fn cut(&self, last: u64) -> Self {
        let mut cut = Self::empty();
        for seq in 1..=last {
            cut.put(&self.backend.read(&ObjectKey::log(seq), 1 << 20).expect("an entry"));
        }
        cut
    }
}

#[test]
fn heads_are_short_lines() {
    let head = Head { seq: 12, hash: CommitHash::from_bytes([0xab; 32]) };
    let text = head.to_string();
    assert_eq!(text, format!("12:{}", "ab".repeat(32)));
    assert_eq!(text.parse(), Ok(head));
    for wrong in ["", "12", "12:", "0:ab", ":ab", "12 ab", &text[1..text.len() - 1], &format!("-{text}")] {
        wrong.parse::<Head>().expect_err("no head");
    }
}

#[test]
fn a_log_passes_through_all_its_heads_and_no_others() {
    let mut log = Log::new();
    let mut heads = vec![log.head()];
    for n in 2..6 {
        if n == 4 {
            log.put(b"junk");
        } else {
            log.commit(1, vec![added(n, writer(n).id())]);
        }
        heads.push(log.head());
    }
    for head in &heads {
        log.verify(head).expect("it was there");
        for last in 1..=log.last {
            let cut = log.cut(last);
            match cut.verify(head) {
                Ok(()) => assert!(head.seq <= last),
                Err(HeadError::Older { expected, found }) => {
                    assert_eq!((expected, found, last < head.seq), (*head, last, true));
                }
                Err(error) => panic!("{error}"),
            }
        }
        let other = Head { hash: CommitHash::from_bytes([1; 32]), ..*head };
        assert!(matches!(log.verify(&other), Err(HeadError::Other { .. })));
    }
}

/// Somebody goes on from where the log was cut off, and puts back the entry that others remember.
#[test]
fn an_entry_put_back_into_another_history_is_noticed() {
    let mut log = Log::new();
    log.commit(1, vec![added(2, writer(2).id())]);
    let remembered = log.head();
    let entry = log.backend.read(&ObjectKey::log(2), 1 << 20).expect("the entry");
    let mut other = log.cut(1);
    other.commit(1, vec![added(3, writer(3).id())]);
    other.commit(1, vec![added(4, writer(4).id())]);
    assert!(matches!(other.verify(&remembered), Err(HeadError::Other { .. })));
    other.backend.plant(&ObjectKey::log(2), &entry);
    assert!(matches!(other.verify(&remembered), Err(HeadError::Log(LogError::Chain { seq: 3, .. }))));
    other.backend.delete(&ObjectKey::log(2)).expect("deleted");
    assert!(matches!(other.verify(&remembered), Err(HeadError::Log(LogError::Gap { missing: 2, .. }))));
}

#[test]
fn what_a_full_writer_says_of_a_segment_holds_whatever_an_appender_said_of_it() {
    let mut log = Log::new();
    let keyslot = KeyslotId::from_bytes([2; 32]);
    log.commit(1, vec![Change::AppenderAdded { keyslot, writer: writer(2).id(), label: String::new() }]);
    let info = |blobs| SegmentInfo { segment: SegmentId::from_bytes([5; 32]), blobs, packs: 1, bytes: 1 };
    // The appender's lie, the truth, another lie, and another truth, which adds what is there.
    for (by, blobs, holds) in [(2, 1, 1), (1, 2, 2), (2, 3, 2), (1, 4, 2)] {
        log.commit(by, vec![Change::SegmentsReplaced { added: vec![info(blobs)], removed: Vec::new() }]);
        let (voids, fold) = log.read().expect("readable");
        assert!(voids.is_empty());
        assert_eq!(fold.segments().copied().collect::<Vec<_>>(), [info(holds)], "by {by}");
        assert_eq!(fold.appended_by(&info(1).segment), (holds == 1).then(|| writer(2).id()));
    }
}
