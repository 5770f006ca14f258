//! Objects in each other's place: every object of a small repository in place of every other, parts of one in another of its kind, cut
//! short, ends of the log cut off, and what was deleted put back.
//!
//! Each time the repository does not open and says why, or the check names the object, or it is of no consequence; and whatever is restored is
//! right or said not to be. An ordinary run tries one in so many: `STRONGROOM_EXCHANGES_EVERY=1` tries all.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::fixture::{check_all, store_state};
use super::{CheckOptions, ReadData, run};
use crate::backend::{Backend, Folder, MemoryBackend, ObjectKey};
use crate::crypto::Password;
use crate::deeds::{SECOND, open_by, open_with};
use crate::forget;
use crate::log::Head;
use crate::monitor::Silent;
use crate::parity::{self, AddOptions};
use crate::prune::test_support::{Files, World, at_once, files_of, noise, prune};
use crate::repo::{Repository, RepositoryError};
use crate::restore::{self, RestoreOptions};
use crate::testing::{CHEAP, PASSWORD, environment};

/// In an ordinary run one in so many is tried.
const EVERY: usize = 41;
/// A password that is removed.
const FORMER: &[u8] = b"former";

type Bytes = Arc<[u8]>;

/// A repository with several objects of every kind, and those that were deleted on its way.
struct Past {
    world: World,
    hand: Repository,
    head: Head,
    objects: BTreeMap<ObjectKey, Bytes>,
    gone: BTreeMap<ObjectKey, Bytes>,
}

fn past() -> Past {
    let mut world = World::new();
    let mut all = BTreeMap::new();
    let mut note = |world: &World| all.extend(world.storage.objects());
    let repository = world.open();
    repository.add_keyslot(&Password::new(SECOND.to_vec()), "second", CHEAP).expect("added");
    let former = repository.add_keyslot(&Password::new(FORMER.to_vec()), "former", CHEAP).expect("added");
    for round in 0..4 {
        world.write("both", &noise(round, 900));
        world.write(&format!("f{round}"), &noise(10 + round, 400));
        world.remove(&format!("f{}", round.wrapping_sub(2)));
        let id = world.back_up(&repository);
        store_state(&repository);
        check_recorded(&repository);
        note(&world);
        if round == 1 {
            world.forget(&repository, id);
        }
    }
    repository.remove_keyslot(&former.to_string()).expect("removed");
    parity::add(&repository, &AddOptions { overhead: None, threads: 1, ..AddOptions::default() }, &Silent)
        .expect("added");
    note(&world);
    prune(&repository, &at_once());
    prune(&repository, &at_once());
    let held = *world.expected.keys().next().expect("several");
    forget::hold(&repository, held, "kept").expect("held");
    store_state(&repository);
    let states = keys_of(&world.storage, Folder::State);
    for state in &states[..states.len() - 2] {
        repository.delete_object(state).expect("deleted");
    }
    check_recorded(&repository);
    world.verify();
    let objects: BTreeMap<_, _> = world.storage.objects().into_iter().collect();
    let gone = all.into_iter().filter(|(key, _)| !objects.contains_key(key)).collect();
    let head = repository.head().expect("a log");
    Past { world, hand: repository, head, objects, gone }
}

fn check_recorded(repository: &Repository) {
    let options = CheckOptions { read_data: ReadData::All, record: true, threads: 1, ..Default::default() };
    assert!(!run(repository, &options, &Silent).expect("checked").is_damaged());
}

fn keys_of(storage: &MemoryBackend, folder: Folder) -> Vec<ObjectKey> {
    storage.objects().into_iter().map(|(key, _)| key).filter(|key| key.folder() == Some(folder)).collect()
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// The repository does not open, and says why.
    Refused,
    /// The check names an object that was touched.
    Named,
    /// Everything is there and gives back what it has to.
    Harmless,
}

/// How long what was cut short is.
fn lengths(len: usize) -> Vec<usize> {
    let mut lengths = vec![0, 1, 8, 48, 80, len / 4, len / 2, len * 3 / 4, len.saturating_sub(16), len - 1];
    lengths.retain(|at| *at < len);
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

/// What can be made of one object with another of its kind at hand.
fn mixtures(own: &[u8], other: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut mixtures = vec![
        ("replaced".to_owned(), other.to_vec()),
        ("followed by the other".to_owned(), [own, other].concat()),
    ];
    for at in lengths(own.len().min(other.len())).into_iter().filter(|at| *at > 0) {
        mixtures.push((format!("ends as the other from byte {at}"), [&own[..at], &other[at..]].concat()));
        let end = (at + 64).min(own.len()).min(other.len());
        let patched = [&own[..at], &other[at..end], &own[end..]].concat();
        mixtures.push((format!("has bytes {at} to {end} of the other"), patched));
    }
    mixtures.retain(|(_, bytes)| bytes != own);
    mixtures
}

impl Past {
    fn storage(&self) -> MemoryBackend {
        let storage = MemoryBackend::new();
        self.objects.iter().for_each(|(key, bytes)| storage.plant(key, bytes));
        storage
    }

    fn open(&self, storage: &MemoryBackend) -> Result<Repository, RepositoryError> {
        let backend: Arc<dyn Backend> = Arc::new(storage.clone());
        // Who has it open does not ask for the config and keyslots again.
        let differs = |key: &ObjectKey, bytes: &Bytes| {
            storage.read(key, u64::MAX).map_or(true, |found| found != **bytes)
        };
        let of_keys = |key: &&ObjectKey| matches!(key.folder(), None | Some(Folder::Keys));
        match self.objects.iter().any(|(key, bytes)| of_keys(&key) && differs(key, bytes)) {
            true => open_with(backend, PASSWORD),
            false => open_by(&self.hand, backend),
        }
    }

    /// Makes sure that every snapshot gives back what it has to, or says that it does not; tells whether all do.
    fn restores(&self, repository: &Repository, what: &str) -> bool {
        let live = repository.snapshots().unwrap_or_default();
        let root = self.world.source.path().as_os_str().as_bytes();
        let mut is_whole = self.world.expected.keys().all(|id| live.iter().any(|(live, _)| live == id));
        for (id, snapshot) in live {
            let target = tempfile::tempdir().expect("a folder");
            let options = RestoreOptions { threads: 1, ..RestoreOptions::default() };
            let restored = restore::run(repository, &snapshot, root, target.path(), &options, &Silent);
            let is_said_to_be_right = restored.is_ok_and(|report| report.errors == 0);
            let expected: Option<&Files> = self.world.expected.get(&id);
            let is_right = expected.is_none_or(|files| files_of(target.path()) == *files);
            assert!(is_right || !is_said_to_be_right, "{what}: snapshot {id} gives back something else");
            is_whole &= is_right;
        }
        is_whole
    }

    /// Opens, restores and checks a repository in which these objects are not what they were.
    fn judge(&self, storage: &MemoryBackend, touched: &[&ObjectKey], what: &str) -> Verdict {
        let repository = match self.open(storage) {
            Ok(repository) => repository,
            Err(error) => {
                let text = error.to_string();
                let names_it = touched.iter().any(|key| text.contains(key.as_str()));
                assert!(error.is_damage() || names_it, "{what}: it does not open: {text}");
                let password = Password::new(PASSWORD.to_vec());
                let backend = Arc::new(storage.clone());
                if let Ok(salvaged) = Repository::open_salvaged(backend, &password, environment(98)) {
                    self.restores(&salvaged, what);
                }
                return Verdict::Refused;
            }
        };
        let is_whole = self.restores(&repository, what);
        let report = check_all(&repository);
        let names_it =
            report.findings.iter().any(|found| touched.iter().any(|key| found.object == key.as_str()));
        if names_it {
            return Verdict::Named;
        }
        assert!(is_whole && !report.is_damaged(), "{what}: not named: {:#?}", report.findings);
        Verdict::Harmless
    }
}

/// Something done to a repository, with the objects that it touches.
type Case = (String, Vec<ObjectKey>, Vec<(ObjectKey, Vec<u8>)>);

/// All cases but those of ends of the log.
fn cases(past: &Past) -> Vec<Case> {
    let mut cases = Vec::new();
    for (key, own) in &past.objects {
        for len in lengths(own.len()) {
            let cut = (key.clone(), own[..len].to_vec());
            cases.push((format!("{key} cut to {len} bytes"), vec![key.clone()], vec![cut]));
        }
        let is_sibling = |other: &&ObjectKey| other.folder() == key.folder() && *other != key;
        for (other, bytes) in past.objects.iter().filter(|(other, _)| *other != key) {
            let mut mixtures = mixtures(own, bytes);
            if !is_sibling(&other) {
                // Parts of what lies in another folder are parts of anything.
                mixtures.truncate(1);
            }
            for (how, mixture) in mixtures {
                let what = format!("{key} {how}, {other}");
                cases.push((what, vec![key.clone()], vec![(key.clone(), mixture)]));
            }
            if key < other {
                let swapped = vec![(key.clone(), bytes.to_vec()), (other.clone(), own.to_vec())];
                cases.push((format!("{key} and {other} swapped"), vec![key.clone(), other.clone()], swapped));
            }
        }
        for (former, bytes) in &past.gone {
            let what = format!("{key} replaced by {former}, which was deleted");
            cases.push((what, vec![key.clone()], vec![(key.clone(), bytes.to_vec())]));
        }
    }
    cases
}

fn every() -> usize {
    std::env::var("STRONGROOM_EXCHANGES_EVERY").map_or(EVERY, |text| text.parse().expect("a number"))
}

#[test]
fn no_object_passes_for_another() {
    let past = past();
    let cases = cases(&past);
    let (next, every) = (AtomicUsize::new(0), every());
    let work = || {
        let mut verdicts: BTreeMap<(Option<&str>, Verdict), usize> = BTreeMap::new();
        while let Some((what, touched, plants)) = cases.get(next.fetch_add(every, Ordering::Relaxed)) {
            let storage = past.storage();
            plants.iter().for_each(|(key, bytes)| storage.plant(key, bytes));
            let touched: Vec<_> = touched.iter().collect();
            let verdict = past.judge(&storage, &touched, what);
            let folder = touched[0].folder().map(Folder::name);
            // What is not there as it was written is never of no consequence.
            assert!(verdict != Verdict::Harmless, "{what}: nobody says so");
            *verdicts.entry((folder, verdict)).or_default() += 1;
        }
        verdicts
    };
    let mut all: BTreeMap<_, usize> = BTreeMap::new();
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            for (kind, count) in thread.join().expect("none passes") {
                *all.entry(kind).or_default() += count;
            }
        }
    });
    let count: usize = all.values().sum();
    println!("{count} of {} exchanges: {all:?}", cases.len());
    assert!(count >= cases.len() / every && cases.len() > 5_000, "{count} of {}", cases.len());
}

/// Cut off at any entry, a log is found to be damaged or is that of an older repository, which whoever remembers the newer one refuses.
#[test]
fn no_end_of_the_log_goes_without_being_missed() {
    let past = past();
    let log = keys_of(&past.world.storage, Folder::Log);
    let mut older = 0;
    for kept in 0..log.len() {
        for left_out in
            [vec![], vec![Folder::State], vec![Folder::Parity], vec![Folder::State, Folder::Parity]]
        {
            let what = format!("{kept} entries, without {left_out:?}");
            let storage = past.storage();
            let is_left_out =
                |key: &&ObjectKey| key.folder().is_some_and(|folder| left_out.contains(&folder));
            log[kept..].iter().chain(past.objects.keys().filter(is_left_out)).for_each(|key| {
                storage.delete(key).expect("deleted");
            });
            let repository = match past.open(&storage) {
                Ok(repository) => repository,
                Err(error) => {
                    assert!(error.is_damage(), "{what}: {error}");
                    continue;
                }
            };
            past.restores(&repository, &what);
            assert!(repository.verify_head(&past.head).is_err(), "{what}: passes for the whole log");
            older += usize::from(!check_all(&repository).is_damaged());
        }
    }
    println!("{} ends of the log cut off, {older} of them those of an older repository", 4 * log.len());
}

#[test]
fn what_was_deleted_and_comes_back_is_of_no_consequence() {
    let past = past();
    let folders = [Folder::Packs, Folder::Index, Folder::State, Folder::Keys, Folder::Ledger, Folder::Parity];
    for folder in folders {
        let gone: Vec<_> = past.gone.iter().filter(|(key, _)| key.folder() == Some(folder)).collect();
        assert!(!gone.is_empty(), "nothing of {folder:?} was deleted");
        for (key, bytes) in gone {
            let storage = past.storage();
            storage.plant(key, bytes);
            let what = format!("{key}, which was deleted");
            let repository = past.open(&storage).expect("it opens");
            assert!(past.restores(&repository, &what));
            let report = check_all(&repository);
            assert!(!report.is_damaged(), "{what}: {:#?}", report.findings);
            let by_former = open_with(Arc::new(storage.clone()), FORMER);
            assert!(by_former.is_err(), "{what}: a removed password opens it");
            for _ in 0..2 {
                prune(&repository, &at_once());
            }
            assert!(past.restores(&repository, &what));
            assert!(!check_all(&repository).is_damaged());
        }
    }
}

/// An entry under the next number is void: it is told, and commits go over it.
#[test]
fn log_entries_are_not_said_twice() {
    let past = past();
    let log = keys_of(&past.world.storage, Folder::Log);
    let next = ObjectKey::log(log.len() as u64 + 1);
    for key in &log {
        let storage = past.storage();
        storage.plant(&next, &past.objects[key]);
        let what = format!("{key} once more at the end");
        assert_eq!(past.judge(&storage, &[&next], &what), Verdict::Named, "{what}");
        let repository = past.open(&storage).expect("it opens");
        assert!(past.restores(&repository, &what), "{what}");
        let held = *past.world.expected.keys().next_back().expect("several");
        forget::hold(&repository, held, "over it").expect("committed");
        assert_eq!(repository.fold().seq(), log.len() as u64 + 2, "{what}");
        assert!(past.restores(&past.open(&storage).expect("it opens"), &what), "{what}");
    }
}
