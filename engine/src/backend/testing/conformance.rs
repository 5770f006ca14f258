//! What every backend must do, checked: one suite for all of them. Numbers are those of the guarantees at
//! the head of the `backend` module. That what `create` stored survives a loss of power (3) cannot be seen from
//! here; the rest can.
//!
//! The suite panics at the first violation, since it is called by tests.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::super::{Backend, BackendError, Created, Folder, ObjectInfo, ObjectKey, ObjectReader, Staged};

const NO_LIMIT: u64 = u64::MAX;

/// Checks every guarantee of [`Backend`], each on a new, empty backend that `make` returns.
///
/// # Panics
/// If a guarantee is not kept, with a text that says which.
pub fn check(make: impl Fn() -> Box<dyn Backend>) {
    stores_what_it_was_given(&*make());
    readers_see_whole_objects_or_none(&*make());
    create_replaces_nothing(&*make());
    racing_creates_have_one_winner(&*make());
    lists_in_order(&*make());
    lists_from_a_key(&*make());
    lists_what_was_there_before(&*make());
    lists_nothing_in_empty_folders(&*make());
    ranges_are_filled_or_refused(&*make());
    limits_hold(&*make());
    deleting_is_repeatable(&*make());
    absent_objects_are_not_found(&*make());
    malformed_keys_hold_nothing(&*make());
    staged_objects_are_nothing_until_published(&*make());
    staged_objects_replace_nothing(&*make());
    staged_objects_race_like_others(&*make());
    a_replaced_object_is_the_new_one(&*make());
}

/// A pack key whose id begins with `fan` and is different for each `n`.
fn pack(fan: u8, n: u64) -> ObjectKey {
    ObjectKey::in_folder(Folder::Packs, &format!("{fan:02x}{n:062x}"))
}

/// A key of each shape.
fn one_of_each() -> Vec<ObjectKey> {
    let id = "5e".repeat(32);
    let in_folders = Folder::ALL.map(|folder| {
        let name = if matches!(folder, Folder::Log | Folder::State) { "00000000000000000042" } else { &id };
        ObjectKey::in_folder(folder, name)
    });
    in_folders.into_iter().chain([ObjectKey::config()]).collect()
}

fn create(backend: &dyn Backend, key: &ObjectKey, bytes: &[u8]) -> Created {
    backend.create(key, bytes).unwrap_or_else(|error| panic!("create {key}: {error}"))
}

fn list(backend: &dyn Backend, folder: Folder, from: Option<&ObjectKey>) -> Vec<ObjectInfo> {
    let mut found = Vec::new();
    let visit = &mut |info| {
        found.push(info);
        ControlFlow::Continue(())
    };
    backend.list(folder, from, visit).unwrap_or_else(|error| panic!("list {}: {error}", folder.name()));
    found
}

fn keys(infos: Vec<ObjectInfo>) -> Vec<ObjectKey> {
    infos.into_iter().map(|info| info.key).collect()
}

/// All ways to get at the bytes of an object give `expected`.
fn assert_holds(backend: &dyn Backend, key: &ObjectKey, expected: &[u8]) {
    let size = expected.len() as u64;
    assert_eq!(backend.stat(key).expect("stat"), ObjectInfo { key: key.clone(), size }, "stat");
    assert!(backend.read(key, NO_LIMIT).expect("read") == expected, "{key}: read gave other bytes");
    let mut buffer = vec![0xee; expected.len()];
    backend.read_range(key, 0, &mut buffer).expect("read_range of all");
    assert!(buffer == expected, "{key}: read_range gave other bytes");
    let open = backend.open(key, NO_LIMIT).expect("open");
    assert_reads(&*open, key, expected);
}

fn assert_reads(open: &dyn ObjectReader, key: &ObjectKey, expected: &[u8]) {
    assert_eq!(open.size(), expected.len() as u64, "{key}: an open object has another size");
    let mut buffer = vec![0xee; expected.len()];
    open.read_at(0, &mut buffer).expect("read_at of all");
    assert!(buffer == expected, "{key}: read_at gave other bytes");
}

fn assert_absent(backend: &dyn Backend, key: &ObjectKey) {
    let not_found = |result: Result<(), BackendError>, call: &str| match result {
        Err(error) if error.is_not_found() => assert!(error.to_string().contains(key.as_str())),
        other => panic!("{call} of absent {key} gave {other:?}"),
    };
    not_found(backend.stat(key).map(drop), "stat");
    not_found(backend.read(key, NO_LIMIT).map(drop), "read");
    not_found(backend.read_range(key, 0, &mut [0]), "read_range");
    not_found(backend.open(key, NO_LIMIT).map(drop), "open");
}

/// Guarantee 10, as far as it can be seen without a failure.
fn a_replaced_object_is_the_new_one(backend: &dyn Backend) {
    let mut keys = one_of_each();
    keys.retain(|key| key.folder().is_some());
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(create(backend, key, b"damaged"), Created::New);
        let mut one = [0];
        backend.read_range(key, 0, &mut one).expect("read before");
        if number % 2 == 0 {
            backend.replace(key, b"whole again").expect("replaced");
        } else {
            let mut staged = backend.begin().expect("begun");
            staged.write(b"whole").expect("written");
            staged.write(b" again").expect("written");
            assert_holds(backend, key, b"damaged");
            staged.replace(key).expect("replaced");
        }
        assert_holds(backend, key, b"whole again");
        assert_eq!(create(backend, key, b"other"), Created::Exists, "create replaces nothing all the same");
    }
    backend.replace(&pack(7, 7), b"was missing").expect("stored");
    assert_holds(backend, &pack(7, 7), b"was missing");
    let malformed = ObjectKey::in_folder(Folder::Log, "../config");
    assert!(backend.replace(&malformed, b"x").is_err(), "a name that no object can have was accepted");
    assert_absent(backend, &ObjectKey::config());
}

fn stores_what_it_was_given(backend: &dyn Backend) {
    let large: Vec<u8> = (0..3_000_001_u32).map(|n| (n % 251) as u8).collect();
    for key in one_of_each() {
        assert_eq!(create(backend, &key, key.as_str().as_bytes()), Created::New, "{key}");
        assert_holds(backend, &key, key.as_str().as_bytes());
    }
    for (key, bytes) in [(pack(1, 1), &large[..]), (pack(1, 2), &[]), (ObjectKey::log(0), &[])] {
        assert_eq!(create(backend, &key, bytes), Created::New, "{key}");
        assert_holds(backend, &key, bytes);
    }
    assert!(!backend.location().is_empty(), "a backend has a location");
}

/// Guarantee 1.
fn readers_see_whole_objects_or_none(backend: &dyn Backend) {
    const ROUNDS: u64 = 10;
    const SIZE: usize = 1 << 20;
    let done = AtomicBool::new(false);
    let look = |n: u64| {
        match backend.read(&ObjectKey::log(n), NO_LIMIT) {
            Ok(bytes) => assert!(bytes == vec![n as u8; SIZE], "guarantee 1: read a part of an object"),
            Err(error) => assert!(error.is_not_found(), "guarantee 1: {error}"),
        }
        for info in list(backend, Folder::Log, None) {
            assert_eq!(info.size, SIZE as u64, "guarantee 1: listed a part of an object");
        }
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    (0..ROUNDS).for_each(look);
                }
            });
        }
        for n in 0..ROUNDS {
            // Not by `create`, whose panic would leave the readers running.
            if backend.create(&ObjectKey::log(n), &vec![n as u8; SIZE]).is_err() {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(list(backend, Folder::Log, None).len() as u64, ROUNDS, "all creates succeed");
}

/// Guarantee 2, one after the other.
fn create_replaces_nothing(backend: &dyn Backend) {
    for key in one_of_each() {
        assert_eq!(create(backend, &key, b"first"), Created::New, "{key}");
        for other in [&b"other"[..], b"first", b""] {
            assert_eq!(create(backend, &key, other), Created::Exists, "guarantee 2: {key}");
            assert_holds(backend, &key, b"first");
        }
    }
}

/// Guarantee 2, at once.
fn racing_creates_have_one_winner(backend: &dyn Backend) {
    const THREADS: u8 = 8;
    let packs = (0..5).map(|n| pack(n, 0));
    for key in (0..10).map(ObjectKey::log).chain(packs).chain([ObjectKey::config()]) {
        let barrier = Barrier::new(usize::from(THREADS));
        let content = |thread: u8| vec![thread; 1000 + usize::from(thread)];
        let race = |thread: u8| {
            barrier.wait();
            let created = create(backend, &key, &content(thread));
            (created, backend.read(&key, NO_LIMIT).expect("whoever returned from create finds the object"))
        };
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || race(thread))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic in a race")).collect()
        });
        let winners: Vec<u8> =
            (0..THREADS).filter(|thread| results[usize::from(*thread)].0 == Created::New).collect();
        assert_eq!(winners.len(), 1, "guarantee 2: winners {winners:?} of the race for {key}");
        let expected = content(winners[0]);
        assert!(results.iter().all(|(_, read)| *read == expected), "guarantee 2: {key} is not the winner's");
    }
}

/// Guarantee 4: order, and nothing from other folders.
fn lists_in_order(backend: &dyn Backend) {
    for key in one_of_each() {
        create(backend, &key, b"12345");
    }
    for n in [3, 20, 100, 1, 0, u64::MAX] {
        create(backend, &ObjectKey::log(n), b"1");
    }
    for (fan, n) in [(0xff, 1), (0x00, 7), (0x9a, 2), (0xa9, 2), (0x9a, 1), (0x00, 3)] {
        create(backend, &pack(fan, n), b"123");
    }
    let log: Vec<_> = [0, 1, 3, 20, 42, 100, u64::MAX].map(ObjectKey::log).into();
    assert_eq!(keys(list(backend, Folder::Log, None)), log, "guarantee 4: order");
    let packs = list(backend, Folder::Packs, None);
    assert_eq!(packs.len(), 7, "guarantee 4: all packs are listed");
    assert!(packs.is_sorted_by_key(|info| &info.key), "guarantee 4: order across fan-out folders");
    let sizes: Vec<u64> = packs.iter().map(|info| info.size).collect();
    assert_eq!(sizes, [3, 3, 5, 3, 3, 3, 3], "sizes are the objects' own");
    for folder in [Folder::Keys, Folder::State, Folder::Index, Folder::Parity] {
        let listed = list(backend, folder, None);
        assert!(listed.len() == 1 && listed[0].key.folder() == Some(folder), "{listed:?} in {folder:?}");
    }
}

/// Guarantee 4: the start, and the visitor's say.
fn lists_from_a_key(backend: &dyn Backend) {
    let log: Vec<_> = [2, 4, 6].map(ObjectKey::log).into();
    let packs: Vec<_> = [pack(0x10, 5), pack(0x10, 9), pack(0x7f, 0), pack(0xf0, 1)].into();
    for key in log.iter().chain(&packs) {
        create(backend, key, b"1");
    }
    for (from, expected) in [(0, &log[..]), (2, &log), (3, &log[1..]), (6, &log[2..]), (7, &[])] {
        let listed = keys(list(backend, Folder::Log, Some(&ObjectKey::log(from))));
        assert_eq!(listed, expected, "from log {from}");
    }
    let from_pack = |from: &ObjectKey| keys(list(backend, Folder::Packs, Some(from)));
    for (at, key) in packs.iter().enumerate() {
        assert_eq!(from_pack(key), packs[at..], "from a pack that is there");
    }
    assert_eq!(from_pack(&pack(0x10, 6)), packs[1..], "from inside a fan-out folder");
    assert_eq!(from_pack(&pack(0x11, 0)), packs[2..], "from between fan-out folders");
    assert_eq!(from_pack(&pack(0xf0, 2)), [], "from after the last");
    assert_eq!(from_pack(&ObjectKey::log(9)), packs, "from a key of a lesser folder");
    assert_eq!(from_pack(&ObjectKey::state(0)), [], "from a key of a greater folder");

    for (folder, all) in [(Folder::Log, &log), (Folder::Packs, &packs)] {
        let mut seen = Vec::new();
        let mut stop_at_second = |info: ObjectInfo| {
            // The visitor may use the backend.
            backend.stat(&info.key).expect("a listed object is there");
            seen.push(info.key);
            if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        backend.list(folder, None, &mut stop_at_second).expect("a break is no error");
        assert_eq!(seen, all[..2], "the visitor's break ends the listing");
    }
}

/// Guarantee 4: all that was created before is listed while more is being created.
fn lists_what_was_there_before(backend: &dyn Backend) {
    const PER_THREAD: u64 = 12;
    thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let mut own = BTreeSet::new();
                for n in (0..PER_THREAD).map(|n| 4 * n + thread) {
                    let folder = if n % 2 == 0 { Folder::Log } else { Folder::Packs };
                    let key = if n % 2 == 0 { ObjectKey::log(n) } else { pack(n as u8, n) };
                    create(backend, &key, b"1");
                    own.insert(key);
                    let listed = keys(list(backend, folder, None));
                    assert!(listed.is_sorted(), "guarantee 4: order under concurrent creates");
                    let listed: BTreeSet<_> = listed.into_iter().collect();
                    let missing =
                        own.iter().find(|own| own.folder() == Some(folder) && !listed.contains(own));
                    assert_eq!(missing, None, "guarantee 4: created before the listing, but not in it");
                }
            });
        }
    });
}

fn lists_nothing_in_empty_folders(backend: &dyn Backend) {
    for folder in Folder::ALL {
        assert_eq!(list(backend, folder, None), []);
        assert_eq!(list(backend, folder, Some(&ObjectKey::log(0))), []);
    }
}

/// Guarantee 5.
fn ranges_are_filled_or_refused(backend: &dyn Backend) {
    let key = pack(0xcd, 1);
    create(backend, &key, b"0123456789");
    let open = backend.open(&key, NO_LIMIT).expect("open");
    for (offset, length, expected) in [(0, 10, "0123456789"), (3, 4, "3456"), (9, 1, "9"), (10, 0, "")] {
        let mut buffer = vec![0xee; length];
        backend.read_range(&key, offset, &mut buffer).expect("a range inside the object");
        assert_eq!(buffer, expected.as_bytes(), "guarantee 5: {length} bytes from {offset}");
        buffer.fill(0xee);
        open.read_at(offset, &mut buffer).expect("a range inside the open object");
        assert_eq!(buffer, expected.as_bytes(), "guarantee 5: {length} bytes from {offset}, opened");
    }
    for (offset, length, expected_end) in [
        (0, 11, 11),
        (9, 2, 11),
        (10, 1, 11),
        (11, 0, 11),
        (u64::MAX, 1, u64::MAX),
        (u64::MAX - 1, 9, u64::MAX),
    ] {
        let mut buffer = vec![0; length];
        for result in [backend.read_range(&key, offset, &mut buffer), open.read_at(offset, &mut buffer)] {
            match result {
                Err(BackendError::OutOfRange { key: named, size, start, end }) => {
                    assert_eq!((named, size, start, end), (key.clone(), 10, offset, expected_end));
                }
                other => panic!("guarantee 5: {length} bytes from {offset} of 10 gave {other:?}"),
            }
        }
    }
}

fn limits_hold(backend: &dyn Backend) {
    let key = ObjectKey::log(1);
    create(backend, &key, b"0123456789");
    assert_eq!(backend.read(&key, 10).expect("as long as the limit"), b"0123456789");
    assert_eq!(backend.open(&key, 10).expect("as long as the limit").size(), 10);
    for (call, result) in
        [("read", backend.read(&key, 9).map(drop)), ("open", backend.open(&key, 9).map(drop))]
    {
        match result {
            Err(BackendError::TooLarge { key: named, size: 10, limit: 9 }) => assert_eq!(named, key),
            other => panic!("{call} of 10 bytes with a limit of 9 gave {other:?}"),
        }
    }
}

/// Guarantee 6.
fn deleting_is_repeatable(backend: &dyn Backend) {
    for key in one_of_each() {
        backend.delete(&key).expect("guarantee 6: deleting what never was");
        create(backend, &key, b"first");
        let open = backend.open(&key, NO_LIMIT).expect("opened before the delete");
        backend.read_range(&key, 1, &mut [0; 2]).expect("read before the delete");
        backend.delete(&key).expect("guarantee 6: deleting what is there");
        assert_absent(backend, &key);
        assert_reads(&*open, &key, b"first");
        backend.delete(&key).expect("guarantee 6: deleting again");
        assert_eq!(create(backend, &key, b"second"), Created::New, "a deleted key is free again");
        assert_holds(backend, &key, b"second");
        assert_reads(&*open, &key, b"first");
        backend.delete(&key).expect("deleted");
    }
    lists_nothing_in_empty_folders(backend);
}

fn absent_objects_are_not_found(backend: &dyn Backend) {
    for key in one_of_each() {
        assert_absent(backend, &key);
    }
    create(backend, &pack(0x11, 1), b"a neighbour in the same fan-out folder");
    assert_absent(backend, &pack(0x11, 2));
}

/// Guarantee 7.
fn malformed_keys_hold_nothing(backend: &dyn Backend) {
    create(backend, &ObjectKey::config(), b"config");
    for folder in Folder::ALL {
        for name in ["", ".", "..", "../config", "ab", "tmp-file", "0000000000000000001", &"AB".repeat(32)] {
            let key = ObjectKey::in_folder(folder, name);
            assert!(backend.create(&key, b"x").is_err(), "guarantee 7: created {key}");
            assert!(stage(backend, &[b"x"]).publish(&key).is_err(), "guarantee 7: published {key}");
            assert_absent(backend, &key);
            backend.delete(&key).expect("guarantee 7: deleting what cannot be");
        }
        assert_eq!(list(backend, folder, None), [], "guarantee 7");
    }
    assert_holds(backend, &ObjectKey::config(), b"config");
}

fn stage<'b>(backend: &'b dyn Backend, parts: &[&[u8]]) -> Box<dyn Staged + 'b> {
    let mut staged = backend.begin().unwrap_or_else(|error| panic!("begin: {error}"));
    for part in parts {
        staged.write(part).unwrap_or_else(|error| panic!("write: {error}"));
    }
    staged
}

/// Guarantee 8: neither found nor listed, and whole once published.
fn staged_objects_are_nothing_until_published(backend: &dyn Backend) {
    let large: Vec<u8> = (0..1_000_003_u32).map(|n| (n % 251) as u8).collect();
    for key in one_of_each() {
        let mut first = stage(backend, &[b"be", b"gun"]);
        let mut second = stage(backend, &[&large]);
        drop(stage(backend, &[b"given up"]));
        first.write(b" first").expect("write to one of two");
        assert_absent(backend, &key);
        lists_nothing_in_empty_folders(backend);
        assert_eq!(first.publish(&key).expect("publish"), Created::New, "guarantee 8: {key}");
        assert_holds(backend, &key, b"begun first");
        backend.delete(&key).expect("deleted");

        second.write(b"end").expect("write to the other");
        assert_eq!(second.publish(&key).expect("publish"), Created::New, "guarantee 8: {key}");
        assert_holds(backend, &key, &[&large[..], b"end"].concat());
        backend.delete(&key).expect("deleted");

        assert_eq!(stage(backend, &[]).publish(&key).expect("publish"), Created::New, "an empty object");
        assert_holds(backend, &key, b"");
        backend.delete(&key).expect("deleted");
    }
    lists_nothing_in_empty_folders(backend);
}

/// Guarantee 8: as 2, with both ways of creating.
fn staged_objects_replace_nothing(backend: &dyn Backend) {
    for key in one_of_each() {
        let staged = stage(backend, &[b"sta", b"ged"]);
        assert_eq!(create(backend, &key, b"created"), Created::New, "{key}");
        assert_eq!(staged.publish(&key).expect("publish"), Created::Exists, "guarantee 8: {key}");
        assert_holds(backend, &key, b"created");
        backend.delete(&key).expect("deleted");

        let late = stage(backend, &[b"late"]);
        assert_eq!(stage(backend, &[b"staged"]).publish(&key).expect("publish"), Created::New, "{key}");
        assert_eq!(create(backend, &key, b"created"), Created::Exists, "guarantee 8: {key}");
        assert_eq!(late.publish(&key).expect("publish"), Created::Exists, "guarantee 8: {key}");
        assert_holds(backend, &key, b"staged");
    }
}

/// Guarantee 8: as 2, at once.
fn staged_objects_race_like_others(backend: &dyn Backend) {
    const THREADS: u8 = 6;
    for key in (0..10).map(ObjectKey::log).chain([pack(1, 0)]) {
        let barrier = Barrier::new(usize::from(THREADS));
        let content = |thread: u8| vec![thread; 1000 + usize::from(thread)];
        let race = |thread: u8| {
            let staged = thread.is_multiple_of(2).then(|| stage(backend, &[&content(thread)]));
            barrier.wait();
            match staged {
                Some(staged) => staged.publish(&key).expect("publish"),
                None => create(backend, &key, &content(thread)),
            }
        };
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || race(thread))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic in a race")).collect()
        });
        let winners: Vec<u8> =
            (0..THREADS).filter(|thread| results[usize::from(*thread)] == Created::New).collect();
        assert_eq!(winners.len(), 1, "guarantee 8: winners {winners:?} of the race for {key}");
        assert_holds(backend, &key, &content(winners[0]));
    }
}

#[cfg(test)]
#[path = "conformance_tests.rs"]
mod tests;
