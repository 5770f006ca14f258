//! The plan: what becomes of each pack. Pure: a survey and options in, a value out.

use crate::ids::{PackId, SegmentId};
use crate::prune::survey::{PackUse, Survey};
use crate::prune::{Limit, PruneOptions};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Snapshots whose needs were marked.
    pub snapshots: u64,
    /// Packs in the index.
    pub packs: u64,
    /// Their bytes.
    pub packs_bytes: u64,
    /// Packs without any needed blob, with their bytes: to be condemned.
    pub dead: Vec<(PackId, u64)>,
    /// Packs to be condemned once what is needed of them is written anew.
    pub repack: Vec<(PackId, u64)>,
    /// Packs that no commit names: to be condemned.
    pub stray: Vec<(PackId, u64)>,
    /// Segments that no commit names: to be dropped.
    pub stray_segments: Vec<(SegmentId, u64)>,
    /// About how many unneeded bytes stay.
    pub unused_bytes: u64,
}

/// Makes the plan.
pub(super) fn make(survey: &Survey, options: &PruneOptions) -> Plan {
    let mut plan = Plan {
        snapshots: survey.snapshots.len() as u64,
        packs: survey.packs.len() as u64,
        packs_bytes: survey.packs.iter().fold(0, |sum, pack| pack.entry.size.saturating_add(sum)),
        stray: survey.stray.clone(),
        stray_segments: survey.stray_segments.clone(),
        ..Plan::default()
    };
    let mut partly: Vec<&PackUse> = Vec::new();
    for pack in survey.packs.iter().filter(|pack| !pack.is_appended) {
        match pack.blobs_needed {
            0 => plan.dead.push((pack.entry.id, if pack.stored { pack.entry.size } else { 0 })),
            needed if needed < u64::from(pack.entry.blobs) => partly.push(pack),
            _ => {}
        }
    }
    choose(&mut plan, partly, options);
    plan
}

fn unused(pack: &PackUse) -> u64 {
    pack.entry.size.saturating_sub(pack.bytes_needed)
}

/// Chooses packs to be written anew, those with the greatest unneeded share first, until little enough stays.
fn choose(plan: &mut Plan, mut partly: Vec<&PackUse>, options: &PruneOptions) {
    let dead: u64 = plan.dead.iter().map(|(_, bytes)| bytes).sum();
    let mut unused_bytes: u64 = partly.iter().map(|pack| unused(pack)).sum();
    let needed = plan.packs_bytes.saturating_sub(dead).saturating_sub(unused_bytes);
    let limit = match options.max_unused {
        Limit::Unlimited => u64::MAX,
        Limit::Bytes(bytes) => bytes,
        // Of what stays: needed bytes and these.
        Limit::Percent(percent) if percent >= 100.0 => u64::MAX,
        Limit::Percent(percent) => (needed as f64 * percent / (100.0 - percent)) as u64,
    };
    let share = |pack: &PackUse| unused(pack) as f64 / pack.entry.size.max(1) as f64;
    partly.sort_by(|a, b| share(b).total_cmp(&share(a)).then(a.entry.id.cmp(&b.entry.id)));
    let mut room = options.max_repack_size.unwrap_or(u64::MAX);
    // What cannot be read cannot be written anew: that is for a repair, and the others need not wait for it.
    for pack in partly.into_iter().filter(|pack| !pack.in_doubt) {
        if unused_bytes <= limit {
            break;
        }
        if pack.entry.size > room {
            continue;
        }
        room -= pack.entry.size;
        unused_bytes -= unused(pack);
        plan.repack.push((pack.entry.id, pack.entry.size));
    }
    plan.unused_bytes = unused_bytes;
}
