//! What all parts of a check share: the repository, the findings so far, what cannot be read, and progress.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::{Backend, BackendError, Folder, ObjectKey};
use crate::budget;
use crate::check::newer::{Newer, Watch};
use crate::check::segments::CACHE_SHARE;
use crate::check::{CheckOptions, CheckReport, Damage};
use crate::format::ledger::Method;
use crate::ids::{BlobId, PackId};
use crate::log::Fold;
use crate::monitor::{Monitor, Progress};
use crate::repo::Repository;

/// Blobs that an object's finding names at most.
const NAMED_BLOBS_MAX: usize = 8;

/// Places in packs that do not give the blob they should.
#[derive(Debug, Default)]
pub(super) struct Bad {
    /// Packs that are not there.
    pub packs: HashSet<PackId>,
    /// Blobs that their pack does not give.
    pub blobs: HashSet<(PackId, BlobId)>,
    /// Packs that are there and not what they should be, with what was found first.
    pub damaged: BTreeMap<PackId, String>,
    /// Something that a snapshot needs is missing or broken in itself.
    pub unreachable: bool,
}

impl Bad {
    /// Whether any file can be hit at all.
    pub fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.blobs.is_empty() && !self.unreachable
    }

    /// Whether the blob cannot be had from the pack.
    pub fn is_bad(&self, pack: &PackId, blob: &BlobId) -> bool {
        self.packs.contains(pack) || self.blobs.contains(&(*pack, *blob))
    }
}

#[derive(Debug, Default)]
struct Findings {
    listed: Vec<Damage>,
    more: u64,
}

/// The shared part of a running check.
pub(super) struct Context<'a> {
    pub repository: &'a Repository,
    pub options: &'a CheckOptions,
    threads: usize,
    pub packs_read: AtomicU64,
    pub bytes_read: AtomicU64,
    pub blobs_verified: AtomicU64,
    /// Snapshots whose records are not understood.
    pub unread_snapshots: AtomicU64,
    backend: Arc<dyn Backend>,
    newer: Arc<Newer>,
    /// Packs read in whole and found good: what one attempt has read, the next need not.
    good: Mutex<BTreeMap<PackId, Method>>,
    monitor: &'a dyn Monitor,
    findings: Mutex<Findings>,
    bad: Mutex<Bad>,
    problems: AtomicU64,
    items: AtomicU64,
    items_total: AtomicU64,
    bytes_total: AtomicU64,
    cancelled: AtomicBool,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks changes in single calls: a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Context<'a> {
    pub fn new(repository: &'a Repository, options: &'a CheckOptions, monitor: &'a dyn Monitor) -> Self {
        let newer = Arc::new(Newer::new(repository));
        let inner = Arc::clone(repository.backend());
        let CheckOptions { threads, memory, .. } = *options;
        Self {
            repository,
            options,
            threads: budget::verifiers(threads, memory, memory / CACHE_SHARE),
            packs_read: AtomicU64::default(),
            bytes_read: AtomicU64::default(),
            blobs_verified: AtomicU64::default(),
            unread_snapshots: AtomicU64::default(),
            backend: Arc::new(Watch { inner, newer: Arc::clone(&newer) }),
            newer,
            good: Mutex::default(),
            monitor,
            findings: Mutex::default(),
            bad: Mutex::default(),
            problems: AtomicU64::default(),
            items: AtomicU64::default(),
            items_total: AtomicU64::default(),
            bytes_total: AtomicU64::default(),
            cancelled: AtomicBool::default(),
        }
    }

    /// What everything is read from.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// From now on everything is compared with this fold.
    pub fn go_by(&self, fold: &Arc<Fold>) {
        self.newer.begin(Some(Arc::clone(fold)));
    }

    /// Takes note of an object that is not where the log says.
    pub fn absent(&self, key: &ObjectKey) {
        self.newer.absent(key);
    }

    /// Takes note of a pack that is there, and that only appenders list.
    pub fn unsettled(&self, pack: PackId) {
        self.newer.unsettled(pack);
    }

    /// Whether later commits let something be deleted that had still to be looked at.
    pub fn was_overtaken(&self) -> bool {
        self.newer.is_overtaken()
    }

    /// Forgets what was found, for another attempt.
    pub fn start_over(&self) {
        self.newer.begin(None);
        *lock(&self.findings) = Findings::default();
        *lock(&self.bad) = Bad::default();
        self.problems.store(0, Ordering::Relaxed);
        self.unread_snapshots.store(0, Ordering::Relaxed);
        // What was announced and not come to will be announced again.
        self.items_total.store(self.items.load(Ordering::Relaxed), Ordering::Relaxed);
        self.bytes_total.store(self.bytes_read.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether anything was found so far that is lost or in doubt.
    pub fn found_damage(&self) -> bool {
        let findings = lock(&self.findings);
        findings.more > 0 || findings.listed.iter().any(|finding| finding.is_damage)
    }

    /// A pack was read in whole, and is what it should be.
    pub fn good_pack(&self, pack: PackId, by: Method) {
        lock(&self.good).insert(pack, by);
    }

    /// How the pack was read in whole, if it was and is good.
    pub fn good_by(&self, pack: &PackId) -> Option<Method> {
        lock(&self.good).get(pack).copied()
    }

    /// Notes damage of an object; a blob that is in none has the key "".
    pub fn damage(&self, code: &'static str, object: &dyn std::fmt::Display, message: impl Into<String>) {
        self.find(Damage { code, object: object.to_string(), message: message.into(), is_damage: true });
    }

    /// Notes that a pack is not what it should be.
    pub fn damaged_pack(&self, pack: &PackId, message: impl Into<String>) {
        let message = message.into();
        self.bad().damaged.entry(*pack).or_insert_with(|| message.clone());
        self.damage("pack-damaged", &ObjectKey::pack(pack), message);
    }

    /// Notes something worth knowing.
    pub fn note(&self, code: &'static str, object: &dyn std::fmt::Display, message: impl Into<String>) {
        self.find(Damage { code, object: object.to_string(), message: message.into(), is_damage: false });
    }

    fn find(&self, finding: Damage) {
        // It may follow from what has gone since: nothing can be said any more.
        if self.was_overtaken() {
            return;
        }
        self.problems.fetch_add(1, Ordering::Relaxed);
        let mut findings = lock(&self.findings);
        // Noise must not push damage out of the list.
        let room =
            CheckReport::FINDINGS_MAX - if finding.is_damage { 0 } else { CheckReport::FINDINGS_MAX / 2 };
        if findings.listed.len() < room {
            findings.listed.push(finding);
        } else {
            findings.more += 1;
        }
    }

    /// Notes that something a snapshot needs is missing or broken, so that the files hit get named.
    pub fn unreachable(
        &self,
        code: &'static str,
        object: &dyn std::fmt::Display,
        message: impl Into<String>,
    ) {
        self.damage(code, object, message);
        self.bad().unreachable = true;
    }

    /// Keys of objects with findings that are damage.
    pub fn damaged_objects(&self) -> Vec<ObjectKey> {
        let findings = lock(&self.findings);
        let damaged = findings.listed.iter().filter(|finding| finding.is_damage);
        damaged.filter_map(|finding| ObjectKey::parse(&finding.object)).collect()
    }

    pub fn bad(&self) -> MutexGuard<'_, Bad> {
        lock(&self.bad)
    }

    /// Puts the findings into the report.
    pub fn finish(self, mut report: CheckReport) -> CheckReport {
        let findings = self.findings.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.findings = findings.listed;
        report.findings.sort_by_key(|finding| !finding.is_damage);
        report.more_findings = findings.more;
        report
    }

    /// Whether this attempt has to end now: it was cancelled or overtaken.
    pub fn is_over(&self) -> bool {
        if self.monitor.is_cancelled() {
            self.cancelled.store(true, Ordering::Relaxed);
        }
        self.was_cancelled() || self.was_overtaken()
    }

    /// Whether some part was left out because of a cancellation.
    pub fn was_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Announces more packs and bytes to deal with.
    pub fn expect(&self, items: usize, bytes: u64) {
        self.items_total.fetch_add(items as u64, Ordering::Relaxed);
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    /// A pack was dealt with.
    pub fn item_done(&self) {
        self.items.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    /// Bytes of packs were read in order to verify them.
    pub fn bytes_done(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        self.monitor.progress(&Progress {
            items: self.items.load(Ordering::Relaxed),
            items_total: Some(self.items_total.load(Ordering::Relaxed)),
            bytes: self.bytes_read.load(Ordering::Relaxed),
            bytes_total: Some(self.bytes_total.load(Ordering::Relaxed)),
            problems: self.problems.load(Ordering::Relaxed),
        });
    }

    /// Keys and sizes of a folder in order. Names that are no object's are noted and left out.
    pub fn list(&self, folder: Folder, visit: &mut dyn FnMut(&ObjectKey, u64)) -> Result<(), BackendError> {
        self.backend().list(folder, None, &mut |info| {
            if info.key.is_well_formed() {
                visit(&info.key, info.size);
            } else {
                self.note(
                    "foreign-object",
                    &info.key,
                    "no object of a repository has such a name; it may be deleted",
                );
            }
            ControlFlow::Continue(())
        })
    }

    /// Does `work` on every item, on as many threads as the options allow, and returns what it put out, in no
    /// order. Each thread has a `state` of its own. Ends early when the attempt is over.
    pub fn spread<T: Sync, S, R: Send>(
        &self,
        items: &[T],
        state: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, &T, &mut Vec<R>) + Sync,
    ) -> Vec<R> {
        let next = AtomicUsize::new(0);
        let run = || {
            let (mut state, mut out) = (state(), Vec::new());
            while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.is_over() {
                    break;
                }
                work(&mut state, item, &mut out);
            }
            out
        };
        let threads = self.threads.min(items.len());
        if threads <= 1 {
            return run();
        }
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
            let mut out = run();
            for other in others {
                match other.join() {
                    Ok(more) => out.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            out
        })
    }
}

/// Names the first of some blobs, and says how many there are.
pub(super) fn name_blobs<'a>(blobs: impl ExactSizeIterator<Item = &'a BlobId>) -> String {
    let count = blobs.len();
    let mut text = if count == 1 { "blob ".to_owned() } else { format!("{count} blobs: ") };
    for (number, blob) in blobs.take(NAMED_BLOBS_MAX).enumerate() {
        if number > 0 {
            text.push_str(", ");
        }
        text.push_str(&blob.to_string());
    }
    if count > NAMED_BLOBS_MAX {
        text.push_str(", …");
    }
    text
}
