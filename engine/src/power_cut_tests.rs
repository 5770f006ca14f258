//! Power is cut at every step by which commands change a repository on disk: nothing that was not flushed has arrived, or all of it,
//! or all or nothing but one step, or but a part of one write ([`Story`]). Whatever is found then has to check clean and give every snapshot back that was told to be stored, and
//! backups and prunes go on from it.
//!
//! `STRONGROOM_POWER_STATES=200000` asks for so many states, with sources and histories from more seeds; `STRONGROOM_POWER_SEED=7`
//! begins with another one.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::backend::LocalBackend;
use crate::backend::local::disk::record::{Cut, Entry, Journal, Story, Tree, read_tree};
use crate::crypto::Password;
use crate::deeds::{APPENDER, Deed, SECOND, assert_clean, backend, history, next_seed, open_with, scratch};
use crate::format::parity::Overhead;
use crate::ids::SnapshotId;
use crate::repo::{InitOptions, Repository, RepositoryError};
use crate::reserve;
use crate::testing::{self, CHEAP, PASSWORD};

/// States that are gone through without being asked for more.
const STATES: usize = 5_000;
/// One in so many repositories is backed up to and pruned after the cut, and all its snapshots are restored.
const GO_ON_EVERY: u8 = 16;
/// In one deed of so many objects get their names by links.
const LINKS_EVERY: u64 = 4;

/// What a deed did to a disk step by step.
struct Told<'d> {
    deed: &'d Deed,
    /// How it published objects.
    with_links: bool,
    story: Story,
    /// Its snapshots in the end.
    after: BTreeSet<SnapshotId>,
}

fn write_tree(tree: &Tree) -> TempDir {
    let folder = scratch();
    for (path, entry) in tree {
        let path = folder.path().join(path);
        match entry {
            Entry::Folder => fs::create_dir(path).expect("made"),
            Entry::File(bytes) => fs::write(path, bytes).expect("written"),
        }
    }
    folder
}

/// Does something on disk and writes down how.
fn tell(deed: &Deed, with_links: bool) -> Told<'_> {
    let folder = deed.folder();
    let before = read_tree(folder.path());
    let journal = Journal::begin(folder.path());
    deed.act_in(folder.path(), with_links).unwrap_or_else(|error| panic!("{}: {error}", deed.name));
    let story = Story::new(before, journal.end());
    assert!(story.len() >= 5, "{}: {} steps were recorded", deed.name, story.len());
    // Some deeds only put objects in place of others; the reserve gets its name by a rename in any case.
    let (renames, links) = story.published();
    let is_as_asked = if with_links { links > 0 || renames == 0 } else { links == 0 };
    assert!(is_as_asked, "{}: {renames} names by renames, {links} by links", deed.name);
    // What was done and not written down would be looked at by nobody.
    assert!(story.tree_after(Cut::none(story.len())) == read_tree(folder.path()), "{}", deed.name);
    let snapshots = deed.open_in(folder.path()).expect("it opens").snapshots().expect("readable");
    Told { deed, with_links, story, after: snapshots.into_iter().map(|(id, _)| id).collect() }
}

/// Opens what is there after the cut, and makes sure that everything is right that was told to be.
fn survives(told: &Told<'_>, cut: Cut, tree: &Tree, goes_on: bool) {
    let Told { deed, with_links, story, after } = told;
    let folder = write_tree(tree);
    let is_done = cut.after == story.len();
    if deed.is_damaged && !is_done {
        deed.act_in(folder.path(), *with_links).expect("again");
    }
    let repository = match opened(deed, folder.path(), is_done, goes_on) {
        Some(repository) => repository,
        // Before its config is there no repository is; making it again then works.
        None => {
            deed.act_in(folder.path(), *with_links).expect("it is made again");
            opened(deed, folder.path(), true, goes_on).expect("it is there")
        }
    };
    let snapshots = repository.snapshots().expect("readable");
    let live: BTreeSet<SnapshotId> = snapshots.into_iter().map(|(id, _)| id).collect();
    if is_done {
        assert_eq!(live, *after);
        assert!(deed.is_done(&repository), "it was told to be done, and is not");
    }
    for id in deed.before.keys().filter(|id| !deed.leaving.contains(id)) {
        assert!(live.contains(id), "snapshot {id} is gone");
    }
    match goes_on {
        true => {
            deed.assert_whole(&repository);
            deed.assert_goes_on(&repository);
        }
        false => assert_clean(&repository),
    }
}

/// Opens a repository with every password that opens it, and with none that must not; the last one is one that may do everything. Where
/// passwords are no matter, deriving keys from them would take longer than all the rest: it is done now and then.
fn opened(deed: &Deed, folder: &Path, is_done: bool, thoroughly: bool) -> Option<Repository> {
    let (before, after) = (&deed.passwords.before, &deed.passwords.after);
    if before == after && !deed.is_init && !thoroughly {
        return Some(deed.open_in(folder).unwrap_or_else(|error| panic!("{error}")));
    }
    let mut repository = None;
    for password in
        [APPENDER, PASSWORD, SECOND].into_iter().filter(|one| before.contains(one) || after.contains(one))
    {
        let must = after.contains(&password) && (is_done || before.contains(&password));
        let must_not = is_done && !after.contains(&password);
        match open_with(backend(folder), password) {
            Ok(_) if must_not => panic!("a removed password opens it"),
            Ok(opened) => repository = Some(opened),
            Err(
                RepositoryError::Absent { .. }
                | RepositoryError::NoConfig { .. }
                | RepositoryError::Unfinished { .. },
            ) if deed.is_init && !is_done => {}
            Err(error) if must => panic!("{error}"),
            Err(RepositoryError::WrongPassword { .. } | RepositoryError::RemovedKeyslot(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(repository.is_some() || deed.is_init, "one of the passwords opens it");
    repository
}

/// Goes through all cuts of a deed on all processors; equal states are looked at once.
fn go_through(deed: &Deed, with_links: bool, seed: u64) -> (usize, usize) {
    let told = tell(deed, with_links);
    let cuts = told.story.cuts();
    let (next, distinct) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let seen: Mutex<HashSet<(bool, blake3::Hash)>> = Mutex::default();
    let work = || {
        while let Some(cut) = cuts.get(next.fetch_add(1, Ordering::Relaxed)) {
            let tree = told.story.tree_after(*cut);
            let hash = hash_of(&tree);
            let is_new = seen.lock().expect("whole").insert((cut.after == told.story.len(), hash));
            if !is_new {
                continue;
            }
            distinct.fetch_add(1, Ordering::Relaxed);
            let goes_on = hash.as_bytes()[0].is_multiple_of(GO_ON_EVERY);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                survives(&told, *cut, &tree, goes_on);
            }));
            if done.is_err() {
                let last = cut.after.checked_sub(1).map(|at| told.story.step(at));
                let but = cut.but.map(|(at, _)| told.story.step(at));
                panic!(
                    "seed {seed}, {}: {cut:?}\n  the last step: {last:?}\n  the odd one: {but:?}",
                    deed.name
                );
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            thread.join().expect("no state fails");
        }
    });
    (cuts.len(), distinct.into_inner())
}

fn hash_of(tree: &Tree) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for (path, entry) in tree {
        hasher.update(path.as_os_str().as_bytes()).update(&[0]);
        if let Entry::File(bytes) = entry {
            hasher.update(blake3::hash(bytes).as_bytes());
        }
    }
    hasher.finalize()
}

#[test]
fn power_cuts_at_every_step_lose_nothing() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<usize>().expect("a number"));
    let wanted = number("STRONGROOM_POWER_STATES").unwrap_or(STATES);
    let first = number("STRONGROOM_POWER_SEED").unwrap_or(1) as u64;
    let (mut states, mut distinct, mut seed) = (0, 0, first);
    while states < wanted {
        let mut number = seed;
        history(seed, &mut |deed| {
            // Another deed in each seed.
            number += 1;
            let (more, new) = go_through(deed, number.is_multiple_of(LINKS_EVERY), seed);
            (states, distinct) = (states + more, distinct + new);
        });
        seed += 1;
    }
    println!("{states} states, {distinct} of them distinct, seeds {first} to {}", seed - 1);
}

/// The same `init` given again goes on with what there is, or finds all of it there: never less than was asked for.
#[test]
fn a_repository_that_was_being_made_is_made_as_asked() {
    let parity = Overhead::from_tenths(100);
    let options = InitOptions { kdf: CHEAP, label: "mine".into(), parity, reserve: Some(reserve::LEN_MIN) };
    let make = |folder: &Path| {
        let backend = LocalBackend::create_repository(folder).expect("a folder");
        let password = Password::new(PASSWORD.to_vec());
        Repository::init(Arc::new(backend), &password, &options, testing::environment(next_seed()))
    };
    let folder = scratch();
    let journal = Journal::begin(folder.path());
    make(folder.path()).expect("made");
    let story = Story::new(Tree::new(), journal.end());
    let mut broken_off = 0;
    for cut in story.cuts() {
        let folder = write_tree(&story.tree_after(cut));
        let open =
            || testing::open(Arc::new(LocalBackend::open(folder.path()).expect("a folder")), next_seed());
        match open() {
            Ok(_) => {}
            Err(RepositoryError::Unfinished { .. }) => broken_off += 1,
            Err(error) => {
                assert!(cut.after < story.len(), "{error}");
                assert!(matches!(error, RepositoryError::Absent { .. }), "{cut:?}: {error}");
            }
        }
        let repository = match make(folder.path()) {
            Err(RepositoryError::Exists { .. }) => open(),
            made => made,
        };
        let repository = repository.unwrap_or_else(|error| panic!("{cut:?}: {error}"));
        let fold = repository.fold();
        let label = fold.keyslots().next().map(|slot| slot.label.as_str());
        assert_eq!(
            (label, fold.parity(), fold.reserve()),
            (Some("mine"), parity, options.reserve),
            "{cut:?}"
        );
        assert_clean(&repository);
    }
    assert!(broken_off > 0, "some cuts come before the first commit");
}
