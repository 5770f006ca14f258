//! The storage fails at every operation of everything that changes a repository, in every way in which storage fails: a disk that cannot
//! read or write, one without room, a write that ends halfway, a flush that fails, an answer that is lost. So does every single call by which a repository
//! in a folder changes, where a failing write leaves half of its bytes.
//!
//! Whatever the command says, the repository opens afterwards, a check that reads everything finds nothing, every snapshot that was there gives
//! back what it did, and the same command comes to its end once the storage works again. One that says that it is done has done it.
//!
//! An ordinary run fails one in so many operations. `STRONGROOM_FAULTS_EVERY=1` fails every one of them; `STRONGROOM_FAULT_SEED=7` begins with another
//! history.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::backend::local::disk::inject::{self, Injected};
use crate::backend::local::disk::record::read_tree;
use crate::backend::testing::{Fault, FaultBackend};
use crate::backend::{Backend, MemoryBackend};
use crate::deeds::{self, Deed, history};
use crate::repo::RepositoryError;

/// In an ordinary run one in so many operations fails.
const EVERY: u64 = 23;
/// After one in so many faults it is also tried whether backups and prunes go on.
const GO_ON_EVERY: u64 = 8;

/// How the storage fails, and at which operation.
type Way = (&'static str, fn(u64) -> Fault);

const WAYS: [Way; 5] = [
    ("cannot be done (EIO)", Fault::broken),
    ("finds no room, nor does what follows (ENOSPC)", Fault::full),
    ("writes a part only", Fault::short),
    ("stores something that is not flushed", Fault::unflushed),
    ("is done, and the answer is lost", |n| {
        Fault::nth_mutation(n, std::io::ErrorKind::TimedOut).after_effect()
    }),
];

/// How calls fail by which a repository changes on disk.
type DiskWay = (&'static str, inject::Way);

const DISK_WAYS: [DiskWay; 2] = [
    ("fails (EIO)", inject::Way::Broken),
    ("finds no room, nor does what follows (ENOSPC)", inject::Way::Full),
];

/// What came of all faults.
#[derive(Default)]
struct Tally {
    deeds: u64,
    failed: AtomicU64,
    coped: AtomicU64,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [failed, coped] = [&self.failed, &self.coped].map(|count| count.load(Ordering::Relaxed));
        write!(
            f,
            "{} faults in {} deeds: {failed} commands failed, {coped} coped",
            failed + coped,
            self.deeds
        )
    }
}

/// Makes sure that a fault cost nothing, whatever the command said of it.
fn audit(deed: &Deed, storage: &MemoryBackend, result: &Result<(), String>, goes_on: bool) {
    let backend: Arc<dyn Backend> = Arc::new(storage.clone());
    let open = || deed.open(&backend);
    let mut is_done = result.is_ok();
    match open() {
        Ok(repository) => {
            let is_as_wished = deed.is_done(&repository);
            assert!(is_as_wished || !is_done, "it says that it is done, and is not");
            is_done = is_as_wished;
            if !deed.is_damaged {
                deed.assert_whole(&repository);
            }
        }
        Err(RepositoryError::Absent { .. } | RepositoryError::Unfinished { .. })
            if deed.is_init && !is_done => {}
        Err(error) => assert!(deed.is_damaged && !is_done, "it does not open: {error}"),
    }
    if !(is_done && deed.is_once) {
        deed.act(Arc::clone(&backend)).unwrap_or_else(|error| panic!("again, it fails: {error}"));
    }
    let repository = open().expect("it opens in the end");
    assert!(deed.is_done(&repository), "again, it says that it is done, and is not");
    deed.assert_whole(&repository);
    if goes_on {
        deed.assert_goes_on(&repository);
    }
}

/// What came of a deed, what failed if anything did, and what is stored then.
type Attempt = (Result<(), String>, Option<String>, MemoryBackend);

/// Does it on storage whose `n`-th operation fails in this way.
fn in_memory(deed: &Deed, (_, fault): &Way, n: u64) -> Attempt {
    let storage = deed.storage.snapshot();
    let backend = FaultBackend::new(storage.clone());
    let faults = backend.faults();
    faults.inject(fault(n));
    let result = deed.act(Arc::new(backend));
    (result, faults.first(), storage)
}

/// Does it in a folder, where the `n`-th call that changes something fails in this way.
fn on_disk(deed: &Deed, way: &DiskWay, n: u64) -> Attempt {
    let folder = deed.folder();
    let injected = Injected::begin(folder.path(), way.1, n);
    let result = deed.act_in(folder.path(), false);
    let failed = (injected.end() > 0).then(String::new);
    (result, failed, deeds::in_memory(&read_tree(folder.path())))
}

/// Lets every `every`-th operation of a deed fail.
fn go_through(
    deed: &Deed,
    how: &str,
    every: u64,
    first: u64,
    tally: &Tally,
    attempt: &dyn Fn(u64) -> Attempt,
) {
    for n in (1 + first % every..).step_by(usize::try_from(every).expect("small")) {
        let what = || format!("{}: operation {n} {how}", deed.name);
        let (result, failed, storage) =
            catch_unwind(AssertUnwindSafe(|| attempt(n))).unwrap_or_else(|_| panic!("{}: it panics", what()));
        let Some(failed) = failed else {
            return result.unwrap_or_else(|error| panic!("{}: nothing failed, but {error}", what()));
        };
        let counter = if result.is_ok() { &tally.coped } else { &tally.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        let goes_on = (n / every).is_multiple_of(GO_ON_EVERY);
        catch_unwind(AssertUnwindSafe(|| audit(deed, &storage, &result, goes_on)))
            .unwrap_or_else(|_| panic!("{} ({failed}): {result:?}", what()));
    }
}

/// Goes through a history on all processors, with one way after the other of each deed.
fn go_through_all<W: Sync>(
    ways: &[(&'static str, W)],
    attempt: fn(&Deed, &(&'static str, W), u64) -> Attempt,
) -> Tally {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let every = number("STRONGROOM_FAULTS_EVERY").unwrap_or(EVERY);
    let seed = number("STRONGROOM_FAULT_SEED").unwrap_or(1);
    let mut tally = Tally::default();
    history(seed, &mut |deed| {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(way) = ways.get(next.fetch_add(1, Ordering::Relaxed)) {
                // Each begins elsewhere, so that a sample is not of the same operations every time.
                let first = 7 * tally.deeds + way.0.len() as u64;
                go_through(deed, way.0, every, first, &tally, &|n| attempt(deed, way, n));
            }
        };
        std::thread::scope(|scope| {
            let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads.into_iter().for_each(|thread| thread.join().expect("no fault costs anything"));
        });
        tally.deeds += 1;
    });
    tally
}

#[test]
fn no_fault_of_a_storage_costs_anything() {
    let tally = go_through_all(&WAYS, in_memory);
    println!("{tally}");
    assert!(tally.deeds > 25 && tally.failed.into_inner() > 100 && tally.coped.into_inner() > 10);
}

#[test]
fn no_fault_of_a_disk_costs_anything() {
    let tally = go_through_all(&DISK_WAYS, on_disk);
    println!("{tally}");
    assert!(tally.deeds > 25 && tally.failed.into_inner() > 20);
}
