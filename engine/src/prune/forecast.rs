//! What a run would come to, told without changing anything: a dry run.
//!
//! What is deleted is counted object by object, as a run does. Of what is written only packs are an estimate: how long a new index
//! segment gets follows from its counts, and how long a sidecar gets from its object.

use std::collections::BTreeSet;

use crate::backend::ObjectKey;
use crate::footprint;
use crate::format::header::ObjectKind;
use crate::format::pack::BLOB_ENTRY_LEN;
use crate::format::padme::padme;
use crate::format::segment::Layout;
use crate::ids::PackId;
use crate::index;
use crate::prune::at_work::AtWork;
use crate::prune::condemn::listing;
use crate::prune::plan::Plan;
use crate::prune::survey::{PackUse, Survey};
use crate::prune::{PruneError, PruneOptions, PruneReport, remove, sweep};
use crate::repo::Repository;
use crate::store::StoreOptions;

/// Adds what a run would do by this plan to a report that has what it would do before.
pub(super) fn tell(
    repository: &Repository,
    survey: &Survey,
    plan: &Plan,
    options: &PruneOptions,
    at_work: &mut AtWork,
    report: &mut PruneReport,
) -> Result<(), PruneError> {
    let going: BTreeSet<PackId> = plan.dead.iter().chain(&plan.repack).map(|(pack, _)| *pack).collect();
    replace_segments(repository, plan, &going, report)?;
    write_anew(repository, survey, plan, options, report);
    let fold = repository.fold();
    let mut waiting: BTreeSet<PackId> = fold.condemned().map(|(pack, _)| *pack).collect();
    for pack in remove::due(repository, options, at_work, &|_| true)?.keys() {
        waiting.remove(pack);
    }
    let is_awaited = remove::awaited(repository, options, at_work, u64::MAX) > 0;
    for (pack, bytes) in plan.dead.iter().chain(&plan.repack).chain(&plan.stray) {
        report.packs_condemned += 1;
        report.packs_condemned_bytes += bytes;
        // Strays wait for another run whatever the grace.
        if is_awaited || !options.grace.is_zero() || !going.contains(pack) {
            waiting.insert(*pack);
            continue;
        }
        report.packs_removed += 1;
        report.packs_removed_bytes += bytes;
        report.bytes_deleted += footprint::of(repository, &ObjectKey::pack(pack));
    }
    report.take_waiting(repository, waiting.into_iter());
    let swept = sweep::find(repository)?;
    report.sidecars_removed = swept.len() as u64;
    report.bytes_deleted += swept.iter().map(|(_, bytes)| bytes).sum::<u64>();
    report.segments_unvetted = repository.index().appended().len() as u64;
    report.is_estimate = !plan.repack.is_empty() || report.segments_unvetted > 0;
    Ok(())
}

/// One segment takes the place of all that list packs which go.
fn replace_segments(
    repository: &Repository,
    plan: &Plan,
    going: &BTreeSet<PackId>,
    report: &mut PruneReport,
) -> Result<(), PruneError> {
    let affected = listing(repository, going)?;
    let left = index::filtered_layout(&affected, &|pack| !going.contains(pack))?;
    report.bytes_written += left.map_or(0, |left| footprint::of_new(repository, left.object_len()));
    let replaced = affected.iter().map(|segment| segment.id());
    for id in replaced.chain(plan.stray_segments.iter().map(|(id, _)| *id)) {
        report.bytes_deleted += footprint::of(repository, &ObjectKey::segment(&id));
    }
    Ok(())
}

/// About what is needed of packs that go, in packs of its own with a segment of their own.
fn write_anew(
    repository: &Repository,
    survey: &Survey,
    plan: &Plan,
    options: &PruneOptions,
    report: &mut PruneReport,
) {
    let chosen: BTreeSet<PackId> = plan.repack.iter().map(|(pack, _)| *pack).collect();
    let store = StoreOptions::new(options.level, options.threads, options.memory);
    let mut layout = Layout { entries: 0, packs: 0 };
    for kind in [ObjectKind::DataPack, ObjectKind::MetadataPack] {
        let is_anew = |pack: &&PackUse| pack.entry.header.kind == kind && chosen.contains(&pack.entry.id);
        let (mut blobs, mut bytes) = (0, 0);
        for pack in survey.packs.iter().filter(is_anew) {
            blobs += pack.blobs_needed;
            bytes += pack.bytes_needed;
        }
        if blobs == 0 {
            continue;
        }
        let len = bytes + blobs * BLOB_ENTRY_LEN as u64;
        let packs = len.div_ceil(store.pack_len_of(kind) as u64);
        let padded = padme(len / packs);
        report.bytes_rewritten += packs * padded;
        report.bytes_written += packs * footprint::of_new(repository, padded);
        layout.entries += blobs;
        layout.packs += u32::try_from(packs).unwrap_or(u32::MAX);
    }
    if layout.packs > 0 {
        report.bytes_written += footprint::of_new(repository, layout.object_len());
    }
}
