//! What is measured, each in a process of its own.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strongroom::backend::LocalBackend;
use strongroom::backup::{self, BackupOptions, BackupSource};
use strongroom::browse;
use strongroom::check::{self, CheckOptions};
use strongroom::index;
use strongroom::monitor::Silent;
use strongroom::prune::{self, PruneOptions};
use strongroom::rebuild::{self, RebuildOptions};
use strongroom::repo::Repository;
use strongroom::source::FilterOptions;

use crate::make;
use crate::support::blobs::blob;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Lookups of each sort.
const LOOKUPS: u64 = 400_000;

/// The most memory that this process had so far.
pub fn memory(what: &str) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    println!("{what:>24}  peak memory {}", peak.unwrap_or(" unknown").trim());
}

/// Seconds on the clock and of processors, since some moment.
#[derive(Clone, Copy)]
pub struct Stopwatch {
    started: Instant,
    processor: Duration,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self { started: Instant::now(), processor: processor_time() }
    }

    /// Seconds on the clock.
    pub fn wall(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Seconds of processors: on a busy machine the better figure.
    pub fn processor(&self) -> f64 {
        processor_time().saturating_sub(self.processor).as_secs_f64()
    }
}

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.try_into().expect("time is not negative")
}

fn timed<T>(what: &str, job: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let watch = Stopwatch::start();
    let result = job()?;
    println!("{what:>24}  {:8.3} s, {:8.3} s of processor", watch.wall(), watch.processor());
    Ok(result)
}

fn open(dir: &Path) -> Outcome<Repository> {
    let backend = Arc::new(LocalBackend::open(&dir.join("repo"))?);
    Ok(Repository::open(backend, &make::password(), make::environment())?)
}

pub fn run(phase: &str, dir: &Path, blobs: u64, live: bool) -> Outcome {
    match phase {
        "open" => timed("open and snapshots", || {
            let repository = open(dir)?;
            println!("{:>24}  {} snapshots", "", repository.snapshots()?.len());
            Ok(())
        })?,
        "backup" => {
            // So that it differs from last time.
            let content = format!("{:?}", std::time::SystemTime::now());
            fs::write(dir.join("source/0/0"), content)?;
            timed("backup of one change", || back_up(dir))?;
        }
        "ls" => timed("ls of 1000 files", || list(dir))?,
        "lookup" => lookups(dir, blobs, 1)?,
        "lookup-2" => lookups(dir, blobs, 2)?,
        "merge" => merge(dir)?,
        "verify" => timed("check of all segments", || verify(dir))?,
        "check" => timed("check of the structure", || check(dir))?,
        "prune" => timed("plan of a prune", || plan_prune(dir, live))?,
        "rebuild" => timed("rebuild from packs", || rebuild(dir))?,
        other => return Err(format!("{other}: no such phase").into()),
    }
    memory(phase);
    Ok(())
}

pub fn back_up(dir: &Path) -> Outcome {
    let repository = open(dir)?;
    let source = BackupSource::Paths { paths: vec![dir.join("source")], filter: FilterOptions::default() };
    backup::run(&repository, source, &BackupOptions::default(), &Silent)?;
    Ok(())
}

fn list(dir: &Path) -> Outcome {
    let repository = open(dir)?;
    let (_, snapshot) = repository.find_snapshot("latest")?;
    let mut entries = 0;
    browse::list(repository.reader(), &snapshot.tree, b"", true, &mut |_, _| {
        entries += 1;
        ControlFlow::Continue(())
    })?;
    assert!(entries > 1000, "{entries} entries");
    Ok(())
}

/// Lookups by threads that each ask for other blobs.
fn lookups(dir: &Path, blobs: u64, threads: u64) -> Outcome {
    let repository = open(dir)?;
    let index = repository.index();
    let segments = index.segments();
    println!("{:>24}  {} segments of {:?} entries", "", segments.len(), sizes(&segments));
    // Numbers in no order; those from `blobs` on are not there.
    let number = |n: u64| (n * 0x9e37_79b9) % blobs;
    let rate = |what: &str, is_right: &(dyn Fn(u64) -> bool + Sync)| {
        let watch = Stopwatch::start();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || {
                    for n in thread * LOOKUPS..(thread + 1) * LOOKUPS {
                        assert!(is_right(n), "{what} {n}");
                    }
                });
            }
        });
        let count = (threads * LOOKUPS) as f64;
        let (wall, processor) = (count / watch.wall(), count / watch.processor());
        println!("{what:>24}  {wall:8.0} a second, {processor:8.0} a processor second, {threads} threads");
    };
    let contains = |n| index.contains(&blob(n)).expect("a sound index");
    let get = |n| index.get(&blob(n)).expect("a sound index").is_some();
    rate("contains, there", &|n| contains(number(n)));
    rate("contains, not there", &|n| !contains(blobs + n));
    rate("get, there", &|n| get(number(n)));
    rate("get, not there", &|n| !get(blobs + n));
    Ok(())
}

fn sizes(segments: &[Arc<index::Segment>]) -> Vec<u64> {
    segments.iter().map(|segment| segment.layout().entries).collect()
}

/// Merges all segments into one, which is not committed.
fn merge(dir: &Path) -> Outcome {
    let repository = open(dir)?;
    let segments = repository.index().segments();
    let watch = Stopwatch::start();
    let (id, layout) = index::merge(&segments, &**repository.backend(), &repository.sealer())?;
    let (wall, processor) = (watch.wall(), watch.processor());
    repository.backend().delete(&strongroom::backend::ObjectKey::segment(&id))?;
    println!(
        "{:>24}  {wall:8.3} s, {processor:8.3} s of processor, {:.2} million entries each of the latter",
        "merge of all segments",
        layout.entries as f64 / processor / 1e6
    );
    Ok(())
}

fn verify(dir: &Path) -> Outcome {
    let repository = open(dir)?;
    for segment in repository.index().segments().iter() {
        assert_eq!(segment.verify_with(&mut |_| ())?, segment.id());
    }
    Ok(())
}

fn check(dir: &Path) -> Outcome {
    let repository = open(dir)?;
    let options = CheckOptions { spill: Some(std::env::temp_dir()), ..CheckOptions::default() };
    let report = check::run(&repository, &options, &Silent)?;
    assert!(!report.is_damaged(), "{:?}", report.findings.first());
    println!("{:>24}  {} packs in {} segments", "", report.packs, report.segments);
    Ok(())
}

/// Replaces the index by one of the directories of all packs.
fn rebuild(dir: &Path) -> Outcome {
    let repository = open(dir)?;
    let report = rebuild::run(&repository, &RebuildOptions::default(), &Silent)?;
    assert!(report.damaged.is_empty(), "{:?}", report.damaged.first());
    println!("{:>24}  {} segments", "", report.segments);
    Ok(())
}

/// Where synthetic blobs are in nobody's snapshot, the plan says so of every pack.
fn plan_prune(dir: &Path, live: bool) -> Outcome {
    let repository = open(dir)?;
    let options =
        PruneOptions { dry_run: true, spill: Some(std::env::temp_dir()), ..PruneOptions::default() };
    let report = prune::run(&repository, &options, &Silent)?;
    println!("{:>24}  {} of {} packs would go", "", report.packs_dead, report.packs);
    assert_eq!(report.packs_dead > 0, !live, "{report:?}");
    assert!(report.packs_dead < report.packs, "{report:?}");
    Ok(())
}
