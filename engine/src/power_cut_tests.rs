//! Power is cut at every step by which commands change a repository on disk: nothing that was not flushed has arrived, or all of it,
//! or all or nothing but one step, or but a part of one write ([`Story`]). Whatever is found then has to check clean and give every snapshot back that was told to be stored, and
//! backups and prunes go on from it.
//!
//! `STRONGROOM_POWER_STATES=200000` asks for so many states, with sources and histories from more seeds; `STRONGROOM_POWER_SEED=7`
//! begins with another one.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::backend::local::disk::record::{Cut, Entry, Journal, Story, Tree, read_tree};
use crate::backend::{LocalBackend, MemoryBackend, ObjectKey};
use crate::backup;
use crate::check::{self, CheckOptions, ReadData};
use crate::copy::{self, CopyOptions};
use crate::crypto::Password;
use crate::format::parity::Overhead;
use crate::ids::SnapshotId;
use crate::monitor::Silent;
use crate::parity::{self, AddOptions};
use crate::prune::test_support::{
    Files, Random, World, assert_restores, at_once, files_of, later, noise, open, prune,
};
use crate::rebuild::{self, RebuildOptions};
use crate::repair::test_support::{all_packs, flip, repair_from, thorough};
use crate::repo::{InitOptions, Repository, RepositoryError};
use crate::reserve;
use crate::testing::{self, CHEAP, PASSWORD};

/// States that are gone through without being asked for more.
const STATES: usize = 5_000;
/// One in so many repositories is backed up to and pruned after the cut, and all its snapshots are restored.
const GO_ON_EVERY: u8 = 16;

type Snapshots = BTreeMap<SnapshotId, Files>;

/// What a command did, and what it may and may not have changed.
struct Told {
    name: &'static str,
    story: Story,
    before: Snapshots,
    after: Snapshots,
    /// The folder that was backed up.
    root: Vec<u8>,
    passwords: Passwords,
    /// Whether what is not yet right is made so by doing the same again.
    again: Option<fn(&Repository, &Repository)>,
    /// The repository before it was damaged.
    sound: MemoryBackend,
}

/// Those that open the repository, before and after.
struct Passwords {
    before: Vec<&'static [u8]>,
    after: Vec<&'static [u8]>,
}

const SECOND: &[u8] = b"second";

/// The objects of a repository as files.
fn on_disk(storage: &MemoryBackend) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    LocalBackend::create_repository(folder.path()).expect("made");
    for (key, bytes) in storage.objects() {
        let path = folder.path().join(key.as_str());
        fs::create_dir_all(path.parent().expect("below")).expect("made");
        fs::write(path, bytes).expect("written");
    }
    folder
}

fn in_memory(tree: &Tree) -> MemoryBackend {
    let storage = MemoryBackend::new();
    for (path, entry) in tree {
        let key = ObjectKey::parse(path.to_str().expect("text"));
        if let (Some(key), Entry::File(bytes)) = (key, entry) {
            storage.plant(&key, bytes);
        }
    }
    storage
}

fn write_tree(tree: &Tree) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, entry) in tree {
        let path = folder.path().join(path);
        match entry {
            Entry::Folder => fs::create_dir(path).expect("made"),
            Entry::File(bytes) => fs::write(path, bytes).expect("written"),
        }
    }
    folder
}

/// Does something on disk and writes down how; the world goes on with what came of it.
fn tell(name: &'static str, world: &mut World, act: impl FnOnce(&mut World, &Repository)) -> Told {
    let folder = on_disk(&world.storage);
    let repository = open(LocalBackend::open(folder.path()).expect("a folder"));
    let (before, tree, sound) = (world.expected.clone(), read_tree(folder.path()), world.storage.snapshot());
    let journal = Journal::begin(folder.path());
    act(world, &repository);
    let story = Story::new(tree, journal.end());
    assert!(story.len() >= 5, "{name}: {} steps were recorded", story.len());
    world.storage = in_memory(&read_tree(folder.path()));
    Told {
        name,
        story,
        before,
        after: world.expected.clone(),
        root: world.source.path().as_os_str().as_bytes().to_vec(),
        passwords: Passwords { before: vec![PASSWORD], after: vec![PASSWORD] },
        again: None,
        sound,
    }
}

fn change(world: &World, random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        let name = format!("d{}/f{}", random.below(3), random.below(4));
        let (seed, len) = (random.below(40), usize::try_from(random.below(6_000)).expect("small"));
        match random.below(4) {
            0 => world.remove(&name),
            1 => world.write(&name, format!("{seed} ").repeat(len / 4).as_bytes()),
            _ => world.write(&name, &noise(seed, len)),
        }
    }
    world.write("always", &random.below(u64::MAX).to_le_bytes());
}

fn add_parity(repository: &Repository) {
    parity::add(repository, &AddOptions { overhead: None, threads: 1 }, &Silent).expect("added");
}

fn mend(repository: &Repository, sound: &Repository) {
    let report = repair_from(repository, sound, &thorough()).expect("repaired");
    assert!(report.is_whole(), "{report:?}");
}

fn index_anew(repository: &Repository, _: &Repository) {
    rebuild::run(repository, &RebuildOptions::default(), &Silent).expect("rebuilt");
}

/// One history with every command that changes a repository, each told step by step.
fn history(seed: u64) -> Vec<Told> {
    let mut random = Random::new(seed);
    let mut world = World::new();
    let mut told = Vec::new();
    change(&world, &mut random);
    told.push(tell("first backup", &mut world, |world, repository| {
        world.back_up(repository);
    }));
    for _ in 0..1 + random.below(2) {
        change(&world, &mut random);
        world.back_up(&world.open());
    }
    change(&world, &mut random);
    told.push(tell("backup", &mut world, |world, repository| {
        world.back_up(repository);
    }));
    let second = {
        let mut copied = World::new();
        copied.source = tempfile::tempdir().expect("a folder");
        let source = world.open();
        let mut told = tell("copy", &mut copied, |_, target| {
            copy::run(&source, target, &CopyOptions { threads: 1, ..CopyOptions::default() }, &Silent)
                .expect("copied");
        });
        // Copies have names of their own: what they are is compared by what they restore.
        let target = in_memory(&told.story.tree_after(Cut::none(told.story.len())));
        let ids = open(target).snapshots().expect("readable").into_iter();
        let origins = ids.map(|(id, snapshot)| (id, snapshot.origin.expect("a copy").snapshot));
        told.after = origins.map(|(id, origin)| (id, world.expected[&origin].clone())).collect();
        told.root = world.source.path().as_os_str().as_bytes().to_vec();
        told
    };
    told.push(second);
    told.push(tell("forget", &mut world, |world, repository| {
        let first = *world.expected.keys().next().expect("several");
        world.forget(repository, first);
    }));
    told.push(tell("verification", &mut world, |_, repository| {
        let options =
            CheckOptions { read_data: ReadData::All, record: true, threads: 1, ..CheckOptions::default() };
        assert!(!check::run(repository, &options, &Silent).expect("checked").is_damaged());
    }));
    told.push(tell("condemn", &mut world, |_, repository| {
        prune(repository, &later());
    }));
    told.push(tell("prune", &mut world, |_, repository| {
        prune(repository, &at_once());
    }));
    told.push(tell("parity add", &mut world, |_, repository| add_parity(repository)));
    change(&world, &mut random);
    told.push(tell("backup with parity", &mut world, |world, repository| {
        world.back_up(repository);
    }));
    let last = *world.expected.keys().next_back().expect("several");
    world.forget(&world.open(), last);
    told.push(tell("prune with parity", &mut world, |_, repository| {
        prune(repository, &at_once());
    }));
    told.push(tell("parity drop", &mut world, |_, repository| {
        parity::drop_all(repository, &Silent).expect("dropped");
    }));

    told.push(tell("reserve set", &mut world, |_, repository| {
        reserve::set(repository, reserve::LEN_MIN).expect("there is room");
    }));
    told.push(tell("reserve drop", &mut world, |_, repository| {
        reserve::drop_it(repository).expect("dropped");
    }));

    let mut keys = tell("key add", &mut world, |_, repository| {
        repository.add_keyslot(&Password::new(SECOND.to_vec()), "second", CHEAP).expect("added");
    });
    keys.passwords.after = vec![PASSWORD, SECOND];
    told.push(keys);
    let mut keys = tell("key remove", &mut world, |_, repository| {
        let slots = repository.keyslots();
        let slot = slots.iter().find(|slot| slot.entry.label == "second").expect("it was added");
        repository.remove_keyslot(&slot.entry.keyslot.to_string()).expect("removed");
    });
    keys.passwords.before = vec![PASSWORD, SECOND];
    told.push(keys);
    let original = world.storage.snapshot();
    let mut keys = tell("key passwd", &mut world, |_, repository| {
        repository.change_password(&Password::new(SECOND.to_vec()), CHEAP).expect("changed");
    });
    keys.passwords.after = vec![SECOND];
    told.push(keys);

    world.storage = original;
    let packs = all_packs(&world.storage);
    let sound = world.storage.snapshot();
    flip(&world.storage, &packs[usize::try_from(random.below(packs.len() as u64)).expect("small")]);
    let mut mended = tell("repair packs", &mut world, |_, repository| mend(repository, &open(sound.clone())));
    mended.again = Some(mend);
    mended.sound = sound.clone();
    told.push(mended);
    world.storage = sound;
    let mut indexed = tell("repair index", &mut world, |_, repository| index_anew(repository, repository));
    indexed.again = Some(index_anew);
    told.push(indexed);
    told
}

/// Opens what is there after the cut, and makes sure that everything is right that was told to be.
fn survives(told: &Told, cut: Cut, tree: &Tree, goes_on: bool) {
    let folder = write_tree(tree);
    let backend = || Arc::new(LocalBackend::open(folder.path()).expect("a folder"));
    let opened = |password: &[u8]| {
        Repository::open(backend(), &Password::new(password.to_vec()), testing::environment(next_seed()))
    };
    let is_done = cut.after == told.story.len();
    let Passwords { before, after } = &told.passwords;
    let mut repository = None;
    for password in [PASSWORD, SECOND].into_iter().filter(|one| before.contains(one) || after.contains(one)) {
        let must = after.contains(&password) && (is_done || before.contains(&password));
        let must_not = is_done && !after.contains(&password);
        match opened(password) {
            Ok(_) if must_not => panic!("a removed password opens it"),
            Ok(opened) => repository = Some(opened),
            Err(error) if must => panic!("{error}"),
            Err(RepositoryError::WrongPassword { .. } | RepositoryError::RemovedKeyslot(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let repository = repository.expect("one of the passwords opens it");
    let live: HashSet<_> = repository.snapshots().expect("readable").into_iter().map(|(id, _)| id).collect();
    if is_done {
        assert_eq!(live, told.after.keys().copied().collect());
    }
    let required = told.before.iter().filter(|(id, _)| told.after.contains_key(id));
    for (id, _) in required.clone() {
        assert!(live.contains(id), "snapshot {id} is gone");
    }
    if let Some(again) = told.again.filter(|_| !is_done) {
        again(&repository, &open(told.sound.clone()));
    }
    assert_clean(&repository);
    if goes_on && repository.require_full("go on").is_ok() {
        for (id, files) in required {
            assert_restores(&repository, *id, files, &told.root);
        }
        let root = std::ffi::OsStr::from_bytes(&told.root);
        if Path::new(root).exists() {
            let paths = backup::BackupSource::Paths {
                paths: vec![root.into()],
                filter: crate::source::FilterOptions::default(),
            };
            let options = crate::prune::test_support::options();
            let report = backup::run(&repository, paths, &options, &Silent).expect("it goes on");
            let files = files_of(Path::new(root));
            assert_restores(&repository, report.snapshot.expect("a snapshot"), &files, &told.root);
        }
        for _ in 0..2 {
            prune(&repository, &at_once());
        }
        assert_clean(&repository);
        let reserve = reserve::status(&repository).expect("read");
        assert_eq!(reserve.stored, reserve.wanted);
    }
}

#[track_caller]
fn assert_clean(repository: &Repository) {
    let options = CheckOptions { read_data: ReadData::All, threads: 1, ..CheckOptions::default() };
    let report = check::run(repository, &options, &Silent).expect("checked");
    assert!(!report.is_damaged(), "{:#?}", report.findings);
}

fn next_seed() -> u64 {
    static SEEDS: AtomicU64 = AtomicU64::new(1 << 40);
    SEEDS.fetch_add(1, Ordering::Relaxed)
}

/// Goes through all cuts of a history on all processors; equal states of a command are looked at once.
fn go_through(told: &[Told], seed: u64) -> (usize, usize) {
    let cuts: Vec<(&Told, Cut)> =
        told.iter().flat_map(|told| told.story.cuts().into_iter().map(move |cut| (told, cut))).collect();
    let (next, distinct) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let seen: Mutex<HashSet<(&str, bool, blake3::Hash)>> = Mutex::default();
    let work = || {
        while let Some((told, cut)) = cuts.get(next.fetch_add(1, Ordering::Relaxed)) {
            let tree = told.story.tree_after(*cut);
            let hash = hash_of(&tree);
            let is_new = seen.lock().expect("whole").insert((told.name, cut.after == told.story.len(), hash));
            if !is_new {
                continue;
            }
            distinct.fetch_add(1, Ordering::Relaxed);
            let goes_on = hash.as_bytes()[0].is_multiple_of(GO_ON_EVERY);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                survives(told, *cut, &tree, goes_on);
            }));
            if done.is_err() {
                let last = cut.after.checked_sub(1).map(|at| told.story.step(at));
                let but = cut.but.map(|(at, _)| told.story.step(at));
                panic!(
                    "seed {seed}, {}: {cut:?}\n  the last step: {last:?}\n  the odd one: {but:?}",
                    told.name
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
        let told = history(seed);
        let (more, new) = go_through(&told, seed);
        (states, distinct, seed) = (states + more, distinct + new, seed + 1);
    }
    println!("{states} states, {distinct} of them distinct, seeds {first} to {}", seed - 1);
}

/// The same `init` given again goes on with what there is, or finds all of it there: never less than was asked for.
#[test]
fn a_repository_that_was_being_made_is_made_as_asked() {
    let parity = Overhead::from_tenths(100);
    let options =
        InitOptions { kdf: CHEAP, label: "mine".into(), parity, reserve: Some(reserve::LEN_MIN) };
    let make = |folder: &Path| {
        let backend = LocalBackend::create_repository(folder).expect("a folder");
        let password = Password::new(PASSWORD.to_vec());
        Repository::init(Arc::new(backend), &password, &options, testing::environment(next_seed()))
    };
    let folder = tempfile::tempdir().expect("a folder");
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
        assert_eq!((label, fold.parity(), fold.reserve()), (Some("mine"), parity, options.reserve), "{cut:?}");
        assert_clean(&repository);
    }
    assert!(broken_off > 0, "some cuts come before the first commit");
}
