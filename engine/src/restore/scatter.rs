//! From reads to files: each block is decoded once, each blob in it that is wanted verified once, and written to
//! all its places.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::context::Context;
use super::files::{FileError, Files};
use super::locate::{Block, Item, Read, ReadPlan};
use super::tally::{self, add, explain};
use super::window::{Job, Missing, Wanted};
use crate::backend::ObjectKey;
use crate::crypto::keys::BlobKind;
use crate::ids::BlobId;
use crate::store::{DecodeScratch, ReadError};
use crate::target::{Bounce, Output};

/// What a thread keeps from read to read.
#[derive(Debug, Default)]
pub(super) struct Worker {
    scratch: DecodeScratch,
    sealed: Vec<u8>,
    raw: Vec<u8>,
    order: Vec<Item>,
    bounce: Bounce,
    /// For reading files back.
    pub(super) buffer: Vec<u8>,
}

/// Blobs that their block did not give: from elsewhere, or the reason why not.
type Rescued = HashMap<BlobId, Result<Vec<u8>, (&'static str, Arc<str>)>>;

/// Writes the chunks of one window.
pub(super) struct Scatter<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) wanted: &'a [Wanted],
    pub(super) plan: &'a ReadPlan,
    pub(super) files: &'a Files<'a>,
}

impl Scatter<'_> {
    /// Executes one read.
    pub(super) fn read(&self, worker: &mut Worker, read: &Read) {
        let Worker { scratch, sealed, raw, order, bounce, .. } = worker;
        let blocks = &self.plan.blocks[read.blocks.clone()];
        let Some(first) = blocks.first() else { return };
        let pack = &self.plan.packs[first.pack as usize];
        let reader = self.context.reader();
        if sealed.len() < read.len {
            sealed.resize(read.len, 0);
        }
        let sealed = &mut sealed[..read.len];
        let is_read = reader.backend().read_range(&ObjectKey::pack(&pack.id), read.start, sealed).is_ok();
        let mut rescued = Rescued::new();
        for block in blocks {
            rescued.clear();
            let start = usize::try_from(u64::from(block.span.position) - read.start).unwrap_or(usize::MAX);
            let own = sealed.get_mut(start..).and_then(|rest| rest.get_mut(..block.span.sealed_len as usize));
            let opened = match own {
                Some(own) if is_read => reader.open_block(pack, &block.span, own, scratch, raw),
                // A read that failed as a whole may work block by block: a pack that is cut short, say.
                _ => reader.read_block(pack, &block.span, scratch, raw),
            };
            self.verify(block, &opened, raw, scratch, &mut rescued);
            self.scatter(block, raw, &rescued, order, bounce);
        }
        self.context.tally.show_progress();
    }

    /// Verifies what is wanted of a block; what it does not give is looked for elsewhere.
    fn verify(
        &self,
        block: &Block,
        opened: &Result<(), ReadError>,
        raw: &[u8],
        scratch: &mut DecodeScratch,
        rescued: &mut Rescued,
    ) {
        let items = &self.plan.items[block.items.clone()];
        let mut last = None;
        for item in items {
            let wanted = &self.wanted[item.wanted as usize];
            if last == Some((item.offset, wanted.id)) {
                continue;
            }
            last = Some((item.offset, wanted.id));
            let pack = self.plan.packs[block.pack as usize].id;
            let error = match opened {
                Ok(()) => {
                    let (offset, len) = (item.offset, wanted.len);
                    let reader = self.context.reader();
                    reader.verified(pack, BlobKind::Data, &wanted.id, raw, offset, len).err()
                }
                Err(_) => None,
            };
            if let Some(error) = error.as_ref().or(opened.as_ref().err()) {
                rescued.insert(wanted.id, self.rescue(wanted, (block, item.offset), error, scratch));
            }
        }
    }

    /// Writes what is wanted of a block.
    fn scatter(
        &self,
        block: &Block,
        raw: &[u8],
        rescued: &Rescued,
        order: &mut Vec<Item>,
        bounce: &mut Bounce,
    ) {
        // Items are in the order of the block; now file by file, from front to back.
        let items = &self.plan.items[block.items.clone()];
        order.clear();
        order.extend_from_slice(items);
        order.sort_unstable_by_key(|item| item.wanted);
        let job_of = |item: &Item| self.wanted[item.wanted as usize].job;
        for run in order.chunk_by(|a, b| job_of(a) == job_of(b)) {
            self.write(job_of(&run[0]), run, raw, rescued, bounce);
        }
    }

    /// Looks for a blob in other places than at `offset` in `block`, which failed with `error`.
    fn rescue(
        &self,
        wanted: &Wanted,
        (block, offset): (&Block, u32),
        error: &ReadError,
        scratch: &mut DecodeScratch,
    ) -> Result<Vec<u8>, (&'static str, Arc<str>)> {
        let failed = &self.plan.packs[block.pack as usize];
        let gone = matches!(error, ReadError::Backend { source, .. } if source.is_not_found());
        let reader = self.context.reader();
        if gone {
            reader.read_on(failed.id);
        }
        let mut raw = Vec::new();
        for place in reader.index().get_all(&wanted.id).unwrap_or_default() {
            if (&place.pack, place.entry.block, place.entry.offset) == (failed, block.span, offset) {
                continue;
            }
            let (offset, len) = (place.entry.offset, place.entry.len);
            if len == wanted.len
                && reader.read_block(&place.pack, &place.entry.block, scratch, &mut raw).is_ok()
                && let Ok(bytes) =
                    reader.verified(place.pack.id, BlobKind::Data, &wanted.id, &raw, offset, len)
            {
                return Ok(bytes.to_vec());
            }
        }
        Err((if gone { tally::MISSING } else { tally::code_of(error) }, explain(error).into()))
    }

    /// Writes the items of one file that are in the block.
    fn write(&self, index: u32, run: &[Item], raw: &[u8], rescued: &Rescued, bounce: &mut Bounce) {
        let job = self.files.job(index);
        let count = u32::try_from(run.len()).unwrap_or(u32::MAX);
        for item in run {
            let Wanted { id, len, at, .. } = self.wanted[item.wanted as usize];
            if let Some(Err((code, why))) = rescued.get(&id) {
                job.state.miss(Missing { at, len: len.into(), code, why: Arc::clone(why) });
            }
        }
        // What is known to be missing decides, before anything is written, whether what is there stays.
        if self.files.is_left(job) {
            return self.files.done(index, count, None);
        }
        let whole = self.files.is_all(index, run.len());
        let opened = if whole { self.files.begin(job, true).map(Arc::new) } else { self.files.shared(index) };
        let result = opened.and_then(|output| {
            let out = Out { output: &output, bounce, raw, from: 0, at: 0, len: 0 };
            self.write_all(job, out, run, rescued).map(|()| output)
        });
        let file = match result {
            Ok(file) => Some(file),
            Err(error) => {
                self.files.give_up(job, &error);
                None
            }
        };
        self.files.done(index, count, file.as_ref().map(|output| output.file()));
    }

    fn write_all(
        &self,
        job: &Job,
        mut out: Out<'_>,
        run: &[Item],
        rescued: &Rescued,
    ) -> Result<(), FileError> {
        let mut written = 0;
        for item in run {
            let wanted = &self.wanted[item.wanted as usize];
            let (at, len) = (wanted.at, wanted.len);
            match if rescued.is_empty() { None } else { rescued.get(&wanted.id) } {
                None => {
                    job.state.changed.store(true, Relaxed);
                    out.put(item.offset, at, len)?;
                }
                Some(Ok(bytes)) => {
                    job.state.changed.store(true, Relaxed);
                    out.output.file().write_all_at(bytes, at).map_err(FileError::Write)?;
                }
                Some(Err(_)) => continue,
            }
            written += u64::from(len);
        }
        out.flush()?;
        if written > 0 {
            job.state.had.store(true, Relaxed);
        }
        add(&self.context.tally.counts.bytes_written, written);
        self.context.tally.advance(0, written);
        Ok(())
    }
}

/// Joins writes of what lies side by side both in the block and in the file.
struct Out<'a> {
    output: &'a Output,
    bounce: &'a mut Bounce,
    raw: &'a [u8],
    from: usize,
    at: u64,
    len: usize,
}

impl Out<'_> {
    fn put(&mut self, from: u32, at: u64, len: u32) -> Result<(), FileError> {
        let (from, len) = (from as usize, len as usize);
        if self.from + self.len == from && self.at + self.len as u64 == at {
            self.len += len;
            return Ok(());
        }
        self.flush()?;
        (self.from, self.at, self.len) = (from, at, len);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), FileError> {
        if self.len > 0 {
            let bytes = &self.raw[self.from..self.from + self.len];
            self.output.write_all_at(bytes, self.at, self.bounce).map_err(FileError::Write)?;
            self.len = 0;
        }
        Ok(())
    }
}
