//! Reading files of the target: to find out which chunks they have already, and to verify what was written.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::SeekFrom;

use super::context::Context;
use super::existing::Fate;
use super::tally::{self, explain};
use super::window::{Job, Wanted, Window};
use crate::crypto::keys::BlobKind;
use crate::format::tree::Hole;

/// Bytes of content that a thread compares at a time.
const UNIT_LEN: u64 = 8 << 20;

/// A part of a file that one thread looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    job: usize,
    wanted: Range<usize>,
}

/// Cuts the jobs that `takes` names into units.
pub(super) fn units(window: &Window, takes: impl Fn(&Job) -> bool) -> Vec<Unit> {
    let mut units = Vec::new();
    for (index, job) in window.jobs.iter().enumerate().filter(|(_, job)| takes(job)) {
        let wanted = job.wanted.start as usize..job.wanted.end as usize;
        let (mut start, mut len) = (wanted.start, 0);
        for at in wanted.clone() {
            len += u64::from(window.wanted[at].len);
            if len >= UNIT_LEN {
                units.push(Unit { job: index, wanted: start..at + 1 });
                (start, len) = (at + 1, 0);
            }
        }
        if start < wanted.end || wanted.is_empty() {
            units.push(Unit { job: index, wanted: start..wanted.end });
        }
    }
    units
}

/// Marks in `present` the chunks of an existing file that are as they should be.
pub(super) fn find_present(
    context: &Context<'_>,
    window: &Window,
    unit: &Unit,
    buffer: &mut Vec<u8>,
    present: &[AtomicBool],
) {
    let job = &window.jobs[unit.job];
    let Some(root) = context.readable() else { return };
    // What cannot be read is written anew; if that fails too, it is reported there.
    let Ok(Some(file)) = root.open_to_read(job.place()) else { return };
    let mut same = 0;
    for at in unit.wanted.clone() {
        let wanted = &window.wanted[at];
        if holds(context, &file, wanted, buffer).unwrap_or(false) {
            present[at].store(true, Relaxed);
            same += u64::from(wanted.len);
        }
    }
    context.tally.advance(0, same);
    context.tally.show_progress();
}

/// Whether an existing file reads as zeros where the snapshot's has holes.
pub(super) fn holes_are_empty(context: &Context<'_>, job: &Job, buffer: &mut Vec<u8>) -> bool {
    if job.holes.is_empty() {
        return true;
    }
    let opened = context.readable().map(|root| root.open_to_read(job.place()));
    let Some(Ok(Some(file))) = opened else { return false };
    job.holes.iter().all(|hole| matches!(first_nonzero(&file, *hole, buffer), Ok(None)))
}

/// Whether the file has the chunk in its place.
fn holds(context: &Context<'_>, file: &File, wanted: &Wanted, buffer: &mut Vec<u8>) -> io::Result<bool> {
    if buffer.len() < wanted.len as usize {
        buffer.resize(wanted.len as usize, 0);
    }
    let bytes = &mut buffer[..wanted.len as usize];
    match file.read_exact_at(bytes, wanted.at) {
        Ok(()) => Ok(context.repository.keys().blob_id(BlobKind::Data, bytes) == wanted.id),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a job's file is worth reading back: one that was given up or lacks content has been reported.
pub(super) fn is_verifiable(job: &Job) -> bool {
    !job.state.is_dead() && !job.state.incomplete.load(Relaxed) && job.fate != Fate::Leave
}

/// Reads a part of a file back and compares; reports the first thing that differs.
pub(super) fn verify(context: &Context<'_>, window: &Window, unit: &Unit, buffer: &mut Vec<u8>) {
    let job = &window.jobs[unit.job];
    if let Err(why) = check(context, window, unit, buffer) {
        job.state.differs.store(true, Relaxed);
        job.state.fail(&context.tally);
        context.tally.problem(tally::VERIFY, job.path.as_bytes(), why);
    }
}

fn check(context: &Context<'_>, window: &Window, unit: &Unit, buffer: &mut Vec<u8>) -> Result<(), String> {
    let job = &window.jobs[unit.job];
    let Some(root) = context.readable() else { return Ok(()) };
    let file = root.open_to_read(job.place()).map_err(|error| explain(&error))?;
    let file = file.ok_or("the restored file is gone")?;
    let unreadable = |error: io::Error| format!("the restored file cannot be read back: {error}");
    for at in unit.wanted.clone() {
        let wanted = &window.wanted[at];
        if !holds(context, &file, wanted, buffer).map_err(unreadable)? {
            let end = wanted.at + u64::from(wanted.len);
            return Err(format!(
                "bytes {} to {end} read back from the target differ from the snapshot",
                wanted.at
            ));
        }
    }
    let is_end = job.last && unit.wanted.end == job.wanted.end as usize;
    if is_end {
        let found = file.metadata().map_err(unreadable)?.len();
        if found != job.size {
            return Err(format!("the restored file has {found} bytes, expected {}", job.size));
        }
        for hole in job.holes.iter() {
            if let Some(at) = first_nonzero(&file, *hole, buffer).map_err(unreadable)? {
                return Err(format!("byte {at} read back from the target should be zero"));
            }
        }
    }
    Ok(())
}

/// Offset of the first byte in `hole` that is not zero. What takes no space is not read.
fn first_nonzero(file: &File, hole: Hole, buffer: &mut Vec<u8>) -> io::Result<Option<u64>> {
    const STEP: usize = 1 << 16;
    if buffer.len() < STEP {
        buffer.resize(STEP, 0);
    }
    let end = hole.offset + hole.length;
    let mut at = hole.offset;
    while at < end {
        at = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => return Ok(None),
            // A file system that cannot tell has data everywhere.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => at,
            Err(errno) => return Err(errno.into()),
        };
        if at >= end {
            break;
        }
        let len = usize::try_from(end - at).map_or(STEP, |len| len.min(STEP));
        file.read_exact_at(&mut buffer[..len], at)?;
        if let Some(found) = buffer[..len].iter().position(|byte| *byte != 0) {
            return Ok(Some(at + found as u64));
        }
        at += len as u64;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_zeros_whether_stored_or_not() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        let mut buffer = Vec::new();
        let hole = Hole { offset: 1 << 20, length: 1 << 39 };
        assert_eq!(first_nonzero(&file, hole, &mut buffer).unwrap(), None);
        file.write_all_at(&[0; 100_000], 1 << 30).unwrap();
        assert_eq!(first_nonzero(&file, hole, &mut buffer).unwrap(), None);
        file.write_all_at(&[7], (1 << 30) + 90_000).unwrap();
        assert_eq!(first_nonzero(&file, hole, &mut buffer).unwrap(), Some((1 << 30) + 90_000));
        let short = Hole { offset: 1 << 20, length: (1 << 30) + 90_000 - (1 << 20) };
        assert_eq!(first_nonzero(&file, short, &mut buffer).unwrap(), None);
    }
}
