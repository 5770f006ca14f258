//! Damaging repositories, and what has to come of it.

use std::sync::Arc;

use crate::backend::{Backend, Folder, MemoryBackend, ObjectKey};
use crate::check::{self, CheckOptions, CheckReport, ReadData};
use crate::crypto::Password;
use crate::monitor::Silent;
use crate::prune::test_support::{World, noise};
use crate::repair::{PacksOptions, PacksReport, RepairError, SnapshotsOptions, Sources, packs};
use crate::repo::Repository;
use crate::testing;

/// Reads everything, on one thread.
pub fn thorough() -> PacksOptions {
    PacksOptions { read_data: true, threads: 1, ..PacksOptions::default() }
}

/// As told, on one thread.
pub fn plain() -> PacksOptions {
    PacksOptions { threads: 1, ..PacksOptions::default() }
}

/// All snapshots, on one thread.
pub fn all_snapshots() -> SnapshotsOptions {
    SnapshotsOptions { threads: 1, ..SnapshotsOptions::default() }
}

pub fn repair(repository: &Repository, options: &PacksOptions) -> PacksReport {
    packs::run(repository, options, &Sources::default(), &Silent).expect("repaired")
}

pub fn repair_from(
    repository: &Repository,
    other: &Repository,
    options: &PacksOptions,
) -> Result<PacksReport, RepairError> {
    let sources = Sources { repository: Some(other), paths: Vec::new() };
    packs::run(repository, options, &sources, &Silent)
}

/// A handle on a copy of a repository, at another place.
pub fn copy_of(storage: &MemoryBackend) -> Repository {
    let password = Password::new(testing::PASSWORD.to_vec());
    let backend = Arc::new(storage.snapshot().called("elsewhere"));
    Repository::open_for_repair(backend, &password, testing::environment(4711)).expect("it opens")
}

/// Two backups: a large file of several blocks, small ones in folders, and a change of each.
pub fn world() -> World {
    let mut world = World::new();
    world.write("large", &noise(1, 5 << 19));
    for n in 0..6 {
        world.write(&format!("dir{}/small{n}", n % 2), &noise(100 + n, 3000));
    }
    let repository = world.open();
    world.back_up(&repository);
    world.write("dir0/small0", &noise(200, 4000));
    world.write("new", &noise(201, 100_000));
    world.back_up(&repository);
    world
}

/// Keys of stored packs: those of files' content, or those of trees.
pub fn packs_of(storage: &MemoryBackend, of_data: bool) -> Vec<ObjectKey> {
    let is_wanted = |(key, bytes): &(ObjectKey, Arc<[u8]>)| {
        key.folder() == Some(Folder::Packs) && (bytes[8] == 5) == of_data
    };
    storage.objects().into_iter().filter(is_wanted).map(|(key, _)| key).collect()
}

pub fn all_packs(storage: &MemoryBackend) -> Vec<ObjectKey> {
    [packs_of(storage, true), packs_of(storage, false)].concat()
}

/// Flips a bit in the first block.
pub fn flip(storage: &MemoryBackend, key: &ObjectKey) {
    storage.corrupt(key, |bytes| {
        let at = 100.min(bytes.len() - 1);
        bytes[at] ^= 4;
    });
}

/// A way to damage a pack.
type Damaging = fn(&MemoryBackend, &ObjectKey);

/// Every way to damage a pack.
pub const DAMAGES: [(&str, Damaging); 7] = [
    ("gone", |storage, key| storage.delete(key).expect("deleted")),
    ("flip in a block", flip),
    ("flip in the header", |storage, key| storage.corrupt(key, |bytes| bytes[20] ^= 1)),
    ("flip at the end", |storage, key| {
        storage.corrupt(key, |bytes| *bytes.last_mut().expect("a pack") ^= 1);
    }),
    ("cut to half", |storage, key| storage.corrupt(key, |bytes| bytes.truncate(bytes.len() / 2))),
    ("empty", |storage, key| storage.corrupt(key, Vec::clear)),
    ("another pack in its place", |storage, key| {
        let other = all_packs(storage).into_iter().find(|other| other != key).expect("several packs");
        let bytes = storage.read(&other, u64::MAX).expect("there");
        storage.plant(key, &bytes);
    }),
];

pub fn check_all(repository: &Repository) -> CheckReport {
    let options = CheckOptions { read_data: ReadData::All, threads: 1, ..CheckOptions::default() };
    check::run(repository, &options, &Silent).expect("checked")
}
