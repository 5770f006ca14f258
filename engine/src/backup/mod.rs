//! Backup: from a source to a snapshot.
//!
//! One thread walks, with helpers that scan directories ahead of it, and reads and cuts large files; workers read
//! small files, hash, deduplicate, compress and seal; each store uploads in the background. Buffers circulate
//! between them, so memory is bounded whatever the source. Everything stored becomes part of the repository by one
//! commit at the end, and by partial snapshots on the way.

mod adopt;
mod ahead;
mod assemble;
mod attempts;
mod chunk_table;
mod files;
mod grains;
mod growing;
mod instead;
mod known;
mod links;
mod losses;
mod measure;
mod options;
mod parents;
mod pipeline;
mod reinsert;
mod relied_on;
mod revalidate;
mod roots;
mod sample;
mod scan;
mod session;
mod sign;
mod small;
mod streams;
#[cfg(test)]
mod tests;
mod walk;
mod workers;

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use serde_bytes::ByteBuf;

pub(crate) use adopt::adopt;
pub(crate) use chunk_table::ChunkTable;
pub use grains::GrainRule;
pub use options::{
    Accept, BackupError, BackupOptions, BackupReport, BackupSource, PacksStored, ParentChoice,
    SnapshotLabels, SourceRoot, StreamSource,
};
pub(crate) use reinsert::reinsert;
pub(crate) use session::{RestsOn, Session};

use crate::budget;
use crate::chunk::GearTable;
use crate::format::snapshot::{Snapshot, SnapshotSummary};
use crate::format::tree::Timestamp;
use crate::ids::{BlobId, SnapshotId};
use crate::monitor::{Monitor, Problem};
use crate::repo::{Repository, RepositoryError};
use crate::reserve;
use crate::source::{Filter, FilterOptions};
use assemble::Assembler;
use attempts::Attempts;
use files::FileReader;
use grains::GrainRules;
use instead::Instead;
use losses::Holdings;
use measure::Measured;
use parents::Parents;
use pipeline::Pipeline;
use roots::RootTree;
use scan::{ScanLimits, Scanner, Scratch};
use streams::KeptStream;
use walk::{SavePartial, Walker};

/// How often a backup begins anew because others removed what it rests on.
const RETRIES: u32 = 3;

/// How often an appender does that as long as it gains something each time, relying in the end on nothing but its own.
const RETRIES_MAX: u32 = 20;

/// Backs a source up. Where another prune took away what the backup rests on, it begins anew: what it stored meanwhile is
/// found there.
///
/// # Errors
/// [`BackupError`]: no snapshot was made, or only partial ones.
pub fn run(
    repository: &Repository,
    source: BackupSource,
    options: &BackupOptions,
    monitor: &dyn Monitor,
) -> Result<BackupReport, BackupError> {
    run_within(repository, source, options, &ScanLimits::new(options.spill.clone()), monitor)
}

/// As [`run`], with so much of a directory in memory at once.
fn run_within(
    repository: &Repository,
    source: BackupSource,
    options: &BackupOptions,
    limits: &ScanLimits,
    monitor: &dyn Monitor,
) -> Result<BackupReport, BackupError> {
    check_limits(options)?;
    repository.live_in(options.memory);
    if options.dry_run {
        let report = back_up(repository, source, options, limits, monitor)?;
        return Ok(BackupReport { lost_commits: repository.lost_commits(), ..report });
    }
    // Nothing is left behind for a mistake on the command line.
    match &source {
        BackupSource::Paths { paths, .. } => {
            check_parts(repository, &at_their_places(paths), &[])?;
        }
        BackupSource::Parts { roots, streams, .. } => {
            let names = streams.iter().map(|stream| stream.name.clone()).collect::<Vec<_>>();
            check_parts(repository, roots, &names)?;
        }
        BackupSource::Stream { .. } => {}
    }
    let backend = repository.backend();
    // Who cannot clean up cannot write either, and will say so.
    if backend.clean().is_ok_and(|left_behind| left_behind > 0) && !repository.is_append_only() {
        take_over(repository, options, monitor);
    }
    let sign = backend.sign().map_err(RepositoryError::from)?;
    let result = back_up(repository, source, options, limits, monitor);
    match &result {
        Ok(_) => sign.remove(),
        // What was stored is for the next run to find.
        Err(_) => drop(sign),
    }
    Ok(BackupReport { lost_commits: repository.lost_commits(), ..result? })
}

/// The sources, with streams by these names, as they become a tree, with their paths, if all of them are there and none is part of the repository.
fn check_parts(
    repository: &Repository,
    roots: &[SourceRoot],
    streams: &[Vec<u8>],
) -> Result<(RootTree, Vec<ByteBuf>), BackupError> {
    if roots.is_empty() && streams.is_empty() {
        return Err(BackupError::NoPaths);
    }
    let roots = absolute_roots(roots)?;
    let forbidden = repository_directory(repository);
    if let Some(root) = roots.iter().find(|root| is_within(root.place(), &forbidden)) {
        return Err(BackupError::RepositoryItself { path: root.path.clone() });
    }
    streams.iter().try_for_each(|name| streams::check_name(name))?;
    let tree = RootTree::of(&roots, streams)?;
    let of_roots = roots.iter().map(|root| ByteBuf::from(root.path.as_os_str().as_bytes()));
    let of_streams = streams.iter().map(|name| ByteBuf::from([b"/", name.as_slice()].concat()));
    Ok((tree, of_roots.chain(of_streams).collect()))
}

fn at_their_places(paths: &[PathBuf]) -> Vec<SourceRoot> {
    paths.iter().cloned().map(SourceRoot::at).collect()
}

/// Takes over what a writer that died has stored. To store it again does no harm, so no failure is one of the backup.
fn take_over(repository: &Repository, options: &BackupOptions, monitor: &dyn Monitor) {
    let (code, message) = match adopt(repository, options, monitor) {
        Ok(0) => return,
        Ok(packs) => ("packs-adopted", format!("an interrupted run had stored {packs} packs: they are used")),
        Err(error) => {
            ("packs-not-adopted", format!("what an interrupted run had stored cannot be used: {error}"))
        }
    };
    monitor.problem(&Problem { code, path: None, message, is_error: false });
}

fn back_up(
    repository: &Repository,
    source: BackupSource,
    options: &BackupOptions,
    limits: &ScanLimits,
    monitor: &dyn Monitor,
) -> Result<BackupReport, BackupError> {
    let source = match source {
        BackupSource::Paths { paths, filter } => {
            let accept: Accept = Box::new(|_| Ok(()));
            Source {
                roots: at_their_places(&paths),
                filter,
                instead: Vec::new(),
                streams: Vec::new(),
                accept,
                is_one_stream: false,
            }
        }
        BackupSource::Parts { roots, filter, instead, streams, accept } => Source {
            roots,
            filter,
            instead: absolute_roots(&instead)?,
            streams: KeptStream::all(streams, options.stream_kept),
            accept,
            is_one_stream: false,
        },
        BackupSource::Stream { name, reader, finish } => {
            let streams = KeptStream::all(vec![StreamSource { name, reader, finish }], options.stream_kept);
            let (filter, accept) = (FilterOptions::default(), Box::new(|_: &SnapshotSummary| Ok(())));
            Source { roots: Vec::new(), filter, instead: Vec::new(), streams, accept, is_one_stream: true }
        }
    };
    let attempts = Attempts::default();
    let result = try_until_done(repository, source, &attempts, options, limits, monitor);
    attempts.sign.end(repository);
    result
}

/// A source that may be read several times.
struct Source {
    roots: Vec<SourceRoot>,
    filter: FilterOptions,
    /// Copies that are read in the place of files.
    instead: Vec<SourceRoot>,
    streams: Vec<KeptStream>,
    accept: Accept,
    /// Whether it is nothing but a stream, without anything beside it.
    is_one_stream: bool,
}

/// Backs a source up, and begins anew where others took what that rested on. From then on the run says that it is at work, so that prunes
/// let it keep what it relies on.
fn try_until_done(
    repository: &Repository,
    mut source: Source,
    attempts: &Attempts,
    options: &BackupOptions,
    limits: &ScanLimits,
    monitor: &dyn Monitor,
) -> Result<BackupReport, BackupError> {
    let snapshot = new_snapshot(repository, options);
    let (mut retries, mut stored) = (0, 0);
    loop {
        let base = repository.fold().seq();
        let Source { roots, filter, instead, streams, accept, is_one_stream } = &mut source;
        let result = if *is_one_stream {
            back_up_stream(repository, &mut streams[0], attempts, snapshot.clone(), options, monitor)
        } else {
            let source = PartsInput { roots, filter: filter.clone(), instead, streams, accept, limits };
            back_up_parts(repository, source, attempts, snapshot.clone(), options, monitor)
        };
        let Err(error) = result else { return result };
        // A tree of the parent may be gone, too, if the parent was forgotten meanwhile.
        let may_be_gone = match &error {
            BackupError::Repository(RepositoryError::Conflict) => true,
            BackupError::Read(_) => {
                repository.refresh()?;
                repository.last_loss() > base
            }
            _ => false,
        };
        // What was read of a stream and not kept, whoever made it would have to make again.
        let is_at_hand = source.streams.iter().all(KeptStream::is_at_hand);
        if !may_be_gone || !is_at_hand {
            return Err(error);
        }
        if retries >= RETRIES {
            // An appender cannot keep what others stored from being taken, but what it has stored itself is left alone.
            let has_gained = attempts.stored() > std::mem::replace(&mut stored, attempts.stored());
            if !repository.is_append_only() || !has_gained || retries == RETRIES_MAX {
                return Err(error);
            }
            attempts.rely_on_own();
        }
        retries += 1;
        if !options.dry_run {
            // Nothing is relied on yet.
            attempts.sign.give(repository, u64::MAX)?;
        }
    }
}

/// The snapshot to be, without what reading the source tells.
fn new_snapshot(repository: &Repository, options: &BackupOptions) -> Snapshot {
    let environment = repository.environment();
    let now = (environment.now)();
    Snapshot {
        time: options.labels.time.unwrap_or(now),
        hostname: match options.labels.host.as_str() {
            "" => environment.host.clone(),
            host => host.to_owned(),
        },
        username: environment.user.clone(),
        paths: Vec::new(),
        tree: BlobId::from_bytes([0; 32]),
        tags: options.labels.tags.clone(),
        parent: None,
        partial: false,
        repaired: None,
        origin: None,
        provenance: options.labels.provenance.clone(),
        excludes: options.excludes.clone(),
        program: environment.program.clone(),
        summary: SnapshotSummary::default(),
    }
}

fn check_limits(options: &BackupOptions) -> Result<(), BackupError> {
    if options.memory < BackupOptions::MEMORY_MIN {
        return Err(BackupError::Limit {
            what: "the memory for a backup",
            found: options.memory,
            min: BackupOptions::MEMORY_MIN,
        });
    }
    if options.threads == 0 {
        return Err(BackupError::Limit { what: "the number of threads", found: 0, min: 1 });
    }
    Ok(())
}

/// Runs `produce` on this thread with workers behind it.
fn with_workers<T>(
    session: &Session<'_>,
    options: &BackupOptions,
    monitor: &dyn Monitor,
    assembler: &mut Assembler,
    summary: &mut SnapshotSummary,
    produce: impl FnOnce(Pipeline<'_, '_>) -> Result<T, BackupError>,
) -> Result<T, BackupError> {
    let (jobs, job_queue) = unbounded();
    let (answer_queue, answers) = unbounded();
    std::thread::scope(|scope| {
        let shares = budget::Pipeline::new(options.threads, options.memory);
        for _ in 0..shares.workers {
            let (job_queue, answer_queue) = (job_queue.clone(), answer_queue.clone());
            scope.spawn(move || workers::work(session, options.growing, &job_queue, &answer_queue));
        }
        drop(answer_queue);
        let pipeline = Pipeline::new(session, assembler, monitor, summary, &jobs, &answers, &shares);
        let result = produce(pipeline);
        // Workers end when nobody can send them jobs any more.
        drop(jobs);
        result
    })
}

struct PartsInput<'a> {
    roots: &'a [SourceRoot],
    filter: FilterOptions,
    instead: &'a [SourceRoot],
    streams: &'a mut [KeptStream],
    accept: &'a Accept,
    limits: &'a ScanLimits,
}

fn back_up_parts(
    repository: &Repository,
    source: PartsInput<'_>,
    attempts: &Attempts,
    mut snapshot: Snapshot,
    options: &BackupOptions,
    monitor: &dyn Monitor,
) -> Result<BackupReport, BackupError> {
    let started = (repository.environment().uptime)();
    let PartsInput { roots, filter, instead, streams, accept, limits } = source;
    let filter = Filter::new(filter)?;
    let grains = GrainRules::new(&options.grains)?;
    let names = streams.iter().map(|stream| stream.name.clone()).collect::<Vec<_>>();
    let (tree, paths) = check_parts(repository, roots, &names)?;
    let forbidden = repository_directory(repository);
    snapshot.paths = paths;
    let parents = Parents::choose(repository, &snapshot, options.parent, monitor)?;
    snapshot.parent = parents.main();
    let session = Session::new(repository, options)?.of(attempts);
    let mut assembler = Assembler::new(session.tree_writer());
    let mut summary = SnapshotSummary::default();
    // Each partial snapshot holds what the one before it in this run held. Those of earlier runs may hold more.
    let mut partial: Option<SnapshotId> = None;
    let template = snapshot.clone();
    let mut save_partial = |pipeline: &mut Pipeline<'_, '_>, tree: BlobId| {
        if attempts.sign.is_renewal_due(repository) {
            pipeline.give_sign()?;
        }
        // An appender could not forget a partial snapshot again: what it stored is found by its ids.
        if options.dry_run || repository.is_append_only() {
            return session.commit_blobs(pipeline.assembler.writer());
        }
        let mut next = Snapshot { tree, partial: true, ..template.clone() };
        next.summary = finished_summary(pipeline.summary, &session, started);
        partial = Some(session.commit(pipeline.assembler.writer(), &next, partial.as_slice())?);
        Ok(())
    };
    let run = WalkRun {
        session: &session,
        filter: &filter,
        instead: Instead::of(instead, &filter)?,
        grains: &grains,
        limits,
        forbidden,
        streams,
        time: snapshot.time,
        options,
        monitor,
    };
    let cancelled = run.walk(&tree, &parents, &mut assembler, &mut summary, &mut save_partial)?;
    snapshot.summary = finished_summary(&summary, &session, started);
    if cancelled {
        let report = BackupReport {
            snapshot: partial,
            parent: snapshot.parent,
            summary: snapshot.summary,
            stored: session.packs_stored(),
            cancelled: true,
            lost_commits: Vec::new(),
        };
        return Ok(report);
    }
    accept(&snapshot.summary).map_err(|reason| BackupError::Refused { reason })?;
    snapshot.tree = assembler.root().ok_or(BackupError::Worker)?;
    let partials: Vec<SnapshotId> = parents.partials.iter().copied().chain(partial).collect();
    finish(&session, &mut assembler, &snapshot, &parents, &partials, options, monitor)
}

/// What a walk over a source is made with.
struct WalkRun<'w, 'r> {
    session: &'w Session<'r>,
    filter: &'w Filter,
    instead: Instead,
    grains: &'w GrainRules,
    limits: &'w ScanLimits,
    forbidden: HashSet<(u64, u64)>,
    streams: &'w mut [KeptStream],
    /// The time of the snapshot.
    time: Timestamp,
    options: &'w BackupOptions,
    monitor: &'w dyn Monitor,
}

impl WalkRun<'_, '_> {
    /// Walks and stores everything below the roots; true where it was cancelled.
    fn walk(
        self,
        tree: &RootTree,
        parents: &Parents,
        assembler: &mut Assembler,
        summary: &mut SnapshotSummary,
        save_partial: &mut SavePartial<'_>,
    ) -> Result<bool, BackupError> {
        let Self { session, filter, instead, grains, limits, forbidden, streams, time, options, monitor } =
            self;
        let repository = session.repository;
        let measured = Arc::new(Measured::default());
        std::thread::scope(|scope| {
            if parents.expected.is_none() && monitor.wants_totals() {
                scope.spawn(|| measured.count(tree, filter, limits.spill.clone()));
            }
            let outcome = with_workers(session, options, monitor, assembler, summary, |mut pipeline| {
                pipeline.expected = parents.expected;
                pipeline.measured = Arc::clone(&measured);
                let is_doubted = parents.doubted || !session.in_doubt().is_empty();
                let doubted = is_doubted.then(|| Holdings::of(session));
                let mut scanner = Scanner::new(repository.reader(), filter, limits, forbidden, doubted);
                scanner.instead = instead;
                let mut walker = Walker {
                    pipeline,
                    reader: repository.reader(),
                    grains,
                    scanner: &scanner,
                    files: FileReader::new(GearTable::derive(repository.keys()), options.growing),
                    streams,
                    time,
                    scratch: Scratch::new(limits.spill.clone()),
                    partial_every: options.partial_every,
                    last_partial: Instant::now(),
                    files_at_partial: 0,
                    save_partial,
                    cancelled: false,
                    roots_begun: 0,
                    root_error: None,
                    instead_read: HashSet::new(),
                };
                // The walk scans as well.
                let helpers = budget::scanners(options.threads, options.memory) - 1;
                scanner.with_helpers(helpers, || walker.run(tree, &parents.trees))?;
                walker.pipeline.report();
                Ok(walker.cancelled)
            });
            measured.stop();
            outcome
        })
    }
}

/// Commits the complete snapshot.
fn finish(
    session: &Session<'_>,
    assembler: &mut Assembler,
    snapshot: &Snapshot,
    parents: &Parents,
    partials: &[SnapshotId],
    options: &BackupOptions,
    monitor: &dyn Monitor,
) -> Result<BackupReport, BackupError> {
    // Directories above what was asked for, such as `/tmp`, change without its doing.
    let is_same = |tree| tree == snapshot.tree || assembler.is_unchanged();
    let same = parents.complete.filter(|(_, tree)| options.skip_if_unchanged && is_same(*tree));
    let unchanged = match same.filter(|_| partials.is_empty()) {
        Some((id, _)) => is_live(session.repository, &id)?,
        None => false,
    };
    let mut report = BackupReport {
        snapshot: None,
        parent: snapshot.parent,
        summary: snapshot.summary.clone(),
        stored: session.packs_stored(),
        cancelled: false,
        lost_commits: Vec::new(),
    };
    if unchanged {
        // What had to be stored again was lost or in doubt, whatever the tree says; and what was taken over unread has to be there still.
        let rests_on = RestsOn { roots: &[snapshot.tree], records: &[] };
        session.commit_with(assembler.writer(), rests_on, &mut |_| Ok(Vec::new()))?;
        report.stored = session.packs_stored();
        tell_unsound(session, monitor);
        return Ok(report);
    }
    let id = session.commit(assembler.writer(), snapshot, partials)?;
    tell_unsound(session, monitor);
    report.stored = session.packs_stored();
    if !options.dry_run {
        report.snapshot = Some(id);
        // The snapshot is there: that lookups stay quick can wait for the next backup.
        if let Err(error) = session.repository.merge_segments() {
            let message =
                format!("the snapshot is saved, but segments of the index were not merged: {error}");
            monitor.problem(&Problem { code: "index-not-merged", path: None, message, is_error: false });
        }
        // Nothing rests on it: a check tells where it is too short.
        let _ = reserve::keep_up(session.repository);
    }
    Ok(report)
}

/// Whether nobody has forgotten a snapshot meanwhile.
fn is_live(repository: &Repository, snapshot: &SnapshotId) -> Result<bool, BackupError> {
    repository.refresh()?;
    Ok(repository.fold().snapshot(snapshot).is_some())
}

/// Tells which packs were not relied on that the index lists. The snapshot lacks nothing for that, but others may.
fn tell_unsound(session: &Session<'_>, monitor: &dyn Monitor) {
    for (pack, is_in_doubt) in session.unsound_packs() {
        let (code, what) = match is_in_doubt {
            true => ("pack-in-doubt", "which a check found damaged"),
            false => ("pack-missing", "which is not there or has another length"),
        };
        let message = format!(
            "the index lists pack {pack}, {what}: what is needed of it was stored again. Other snapshots may rest on it: a check tells"
        );
        monitor.problem(&Problem { code, path: None, message, is_error: false });
    }
}

fn finished_summary(summary: &SnapshotSummary, session: &Session<'_>, started: Duration) -> SnapshotSummary {
    let took = (session.repository.environment().uptime)().saturating_sub(started);
    SnapshotSummary {
        bytes_added: session.bytes_added(),
        bytes_stored: session.bytes_stored(),
        duration_ns: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
        ..summary.clone()
    }
}

fn absolute_paths(paths: &[PathBuf]) -> Result<Vec<PathBuf>, BackupError> {
    if paths.is_empty() {
        return Err(BackupError::NoPaths);
    }
    let roots = absolute_roots(&at_their_places(paths))?;
    Ok(roots.into_iter().map(|root| root.path).collect())
}

fn absolute_roots(roots: &[SourceRoot]) -> Result<Vec<SourceRoot>, BackupError> {
    let mut absolute = roots.iter().map(absolute_root).collect::<Result<Vec<_>, _>>()?;
    // Named twice, in whatever ways, it is one source.
    let mut seen = HashSet::new();
    absolute.retain(|root| seen.insert(root.clone()));
    Ok(absolute)
}

fn absolute_root(root: &SourceRoot) -> Result<SourceRoot, BackupError> {
    let failed = |source| BackupError::Source { path: root.path.clone(), source };
    let path = roots::absolute(&root.path).map_err(failed)?;
    let read_from = root.read_from.as_deref().map(roots::absolute).transpose().map_err(failed)?;
    let absolute = SourceRoot { path, read_from };
    // A root that does not exist is a mistake to report before anything is read.
    let is_directory = std::fs::metadata(absolute.place()).is_ok_and(|meta| meta.is_dir());
    std::fs::symlink_metadata(absolute.place()).map_err(failed)?;
    if !is_directory && absolute.place().file_name() != absolute.path.file_name() {
        let message =
            format!("it cannot be read from {}, which has another name", absolute.place().display());
        return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, message)));
    }
    Ok(absolute)
}

/// The directory of a local repository, which must not be backed up into itself.
fn repository_directory(repository: &Repository) -> HashSet<(u64, u64)> {
    std::fs::metadata(repository.location()).map(|meta| (meta.dev(), meta.ino())).into_iter().collect()
}

/// Whether `path` leads to one of some directories, or into one.
fn is_within(path: &Path, directories: &HashSet<(u64, u64)>) -> bool {
    let resolved = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    resolved.ancestors().any(|above| {
        std::fs::metadata(above).is_ok_and(|meta| directories.contains(&(meta.dev(), meta.ino())))
    })
}

fn back_up_stream(
    repository: &Repository,
    input: &mut KeptStream,
    attempts: &Attempts,
    mut snapshot: Snapshot,
    options: &BackupOptions,
    monitor: &dyn Monitor,
) -> Result<BackupReport, BackupError> {
    let started = (repository.environment().uptime)();
    streams::check_name(&input.name)?;
    snapshot.paths = vec![ByteBuf::from([b"/", input.name.as_slice()].concat())];
    let parents = Parents::choose(repository, &snapshot, options.parent, monitor)?;
    snapshot.parent = parents.main();
    let ordered = GrainRules::new(&options.grains)?.of(&streams::place(&input.name));
    let known = ordered.or_else(|| parents.stream_grain(repository, &input.name));
    let session = Session::new(repository, options)?.of(attempts);
    let mut assembler = Assembler::new(session.tree_writer());
    let mut summary = SnapshotSummary { files: 1, files_new: 1, ..SnapshotSummary::default() };
    with_workers(&session, options, monitor, &mut assembler, &mut summary, |mut pipeline| {
        let root = pipeline.assembler.begin_dir(None, None);
        let mut files = FileReader::new(GearTable::derive(repository.keys()), false);
        let name = input.name.clone();
        streams::read(&mut pipeline, &mut files, root, input, (known, snapshot.time))?;
        pipeline.assembler.end_dir(&session, root)?;
        pipeline.drain()?;
        // Without the file there is nothing to make a snapshot of.
        if pipeline.summary.errors > 0 {
            return Err(streams::failed(&name, "it could not be stored".into()));
        }
        Ok(())
    })?;
    snapshot.summary = finished_summary(&summary, &session, started);
    snapshot.tree = assembler.root().ok_or(BackupError::Worker)?;
    finish(&session, &mut assembler, &snapshot, &parents, &[], options, monitor)
}
