//! The part of the check that reads packs in whole: every byte is hashed for the pack's id, and every block is
//! opened, decompressed and its blobs verified, while its bytes are in the processor's cache.

use crate::backend::ObjectKey;
use crate::check::ReadData;
use crate::check::context::{Context, name_blobs};
use crate::check::ledger::Verified;
use crate::check::packs::open_directory;
use crate::check::segments::{KnownPack, Segments};
use crate::crypto::keys::BlobKind;
use crate::crypto::{ObjectCipher, random};
use crate::format::block::BlockCodec;
use crate::format::header::ObjectKind;
use crate::format::ledger::Method;
use crate::format::pack::{self, BlockSpan};
use crate::ids::{BlobId, PackId};

/// Bytes read at a time; longer blocks are read in whole.
const PIECE_LEN: usize = 2 << 20;

/// Reads the packs that the options choose, and all suspects. Returns which were verified how, and whether they were
/// intact.
pub(super) fn check(
    context: &Context<'_>,
    segments: &Segments,
    verified: &Verified,
) -> [(Method, Vec<(PackId, bool)>); 2] {
    // Those that an earlier attempt has read; the others are chosen from what is left.
    let good = segments.packs.iter().filter(|pack| !pack.is_suspect).map(|pack| pack.entry.id);
    let good = good.filter_map(|pack| Some((context.good_by(&pack)?, (pack, true))));
    let good: Vec<_> = good.collect();
    let mut chosen = choose(context, &segments.packs, verified);
    // Heavy ones first, so that the threads end at about the same time.
    chosen.sort_by_key(|pack| std::cmp::Reverse(pack.weight()));
    context.expect(chosen.len(), chosen.iter().filter_map(|pack| pack.stored).sum());
    let done = context.spread(&chosen, Scratch::default, |scratch, pack, out: &mut Vec<_>| {
        let result = PackRead::new(context, segments, pack, scratch).run();
        out.extend(result.map(|(method, is_intact)| (method, (pack.entry.id, is_intact))));
        context.item_done();
    });
    [Method::Hashed, Method::Read].map(|method| {
        let by_it = good.iter().chain(&done).filter(|(by, _)| *by == method);
        (method, by_it.map(|(_, result)| *result).collect())
    })
}

/// The packs that are to be read, of those that are there.
fn choose<'p>(context: &Context<'_>, packs: &'p [KnownPack], verified: &Verified) -> Vec<&'p KnownPack> {
    let mut present: Vec<&KnownPack> = packs.iter().filter(|pack| pack.stored.is_some()).collect();
    present.retain(|pack| pack.is_suspect || context.good_by(&pack.entry.id).is_none());
    let (suspects, others): (Vec<_>, Vec<_>) = present.drain(..).partition(|pack| pack.is_suspect);
    let mut chosen = match context.options.read_data {
        ReadData::No => Vec::new(),
        ReadData::All => others,
        ReadData::Percent(percent) => {
            let share = (others.len() as f64 * percent.clamp(0.0, 100.0) / 100.0).ceil();
            let mut others = shuffle(context, others);
            // From 0 to the number of packs, as computed.
            others.truncate(share as usize);
            others
        }
        ReadData::Part { n, m } => {
            let (n, m) = (u64::from(n), u64::from(m.max(1)));
            others.into_iter().filter(|pack| part_of(&pack.entry.id, m) == n % m).collect()
        }
        ReadData::Bytes(limit) => {
            let mut left = limit;
            let mut others = shuffle(context, others);
            others.retain(|pack| match left.checked_sub(pack.entry.size) {
                Some(rest) => {
                    left = rest;
                    true
                }
                None => false,
            });
            others
        }
        ReadData::Oldest { budget, max_age } => {
            let method = if context.options.hashes_only { Method::Hashed } else { Method::Read };
            let dated = others.into_iter().map(|pack| (verified.last(&pack.entry.id, method), pack));
            let is_due = |time| max_age.is_none_or(|age| verified.age(time) >= age);
            let mut due: Vec<_> = dated.filter(|(time, _)| time.is_none_or(is_due)).collect();
            due.sort_by_key(|(time, _)| *time);
            let mut bytes = 0_u64;
            let within = due.into_iter().enumerate().take_while(|(number, (_, pack))| {
                bytes = bytes.saturating_add(pack.entry.size);
                // Progress, even with a budget smaller than a pack.
                *number == 0 || budget.is_none_or(|budget| bytes <= budget)
            });
            within.map(|(_, (_, pack))| pack).collect()
        }
    };
    chosen.extend(suspects);
    chosen
}

/// Which of `m` parts a pack belongs to: ids are hashes, so parts are about equal.
fn part_of(id: &PackId, m: u64) -> u64 {
    id.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first) % m)
}

fn shuffle<'p>(context: &Context<'_>, mut packs: Vec<&'p KnownPack>) -> Vec<&'p KnownPack> {
    let entropy = &*context.repository.environment().entropy;
    for at in (1..packs.len()).rev() {
        let number = u64::from_le_bytes(random(entropy));
        // Below `at + 1`, which is a length.
        packs.swap(at, (number % (at as u64 + 1)) as usize);
    }
    packs
}

/// What a thread that reads packs keeps: contexts and buffers that are never given back meanwhile.
#[derive(Default)]
struct Scratch {
    codec: BlockCodec,
    window: Vec<u8>,
    raw: Vec<u8>,
    directory: Vec<u8>,
}

/// A block and the blobs that should be in it: id, offset and length of each.
struct Expected {
    span: BlockSpan,
    blobs: Vec<(BlobId, BlobKind, u32, u32)>,
}

/// One pack being read.
struct PackRead<'a> {
    context: &'a Context<'a>,
    segments: &'a Segments,
    pack: &'a KnownPack,
    key: ObjectKey,
    size: u64,
    scratch: &'a mut Scratch,
    hasher: blake3::Hasher,
    /// Position in the pack of the window's first byte.
    window_at: u64,
    /// Bytes of the window that are filled.
    filled: usize,
    bad: Vec<BlobId>,
}

/// The pack cannot be read on, which has been reported, or the check was cancelled.
struct Stopped;

impl<'a> PackRead<'a> {
    fn new(
        context: &'a Context<'a>,
        segments: &'a Segments,
        pack: &'a KnownPack,
        scratch: &'a mut Scratch,
    ) -> Self {
        Self {
            context,
            segments,
            pack,
            key: ObjectKey::pack(&pack.entry.id),
            size: pack.stored.unwrap_or(0),
            scratch,
            hasher: blake3::Hasher::new(),
            window_at: 0,
            filled: 0,
            bad: Vec::new(),
        }
    }

    /// Returns how the pack was verified and whether it is what it should be; `None` where the attempt is over.
    fn run(mut self) -> Option<(Method, bool)> {
        if self.context.options.hashes_only && !self.pack.is_suspect {
            if self.hash_all().is_ok() && self.is_hash_right() {
                self.context.packs_read.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                self.context.good_pack(self.pack.entry.id, Method::Hashed);
                return Some((Method::Hashed, true));
            }
            if self.context.is_over() {
                return None;
            }
            // Once more from the beginning, to say what it does not give.
            self.hasher.reset();
        }
        let mut blocks = self.expected();
        let mut read = 0;
        let result = self.read_blocks(&blocks, &mut read).and_then(|()| self.read_rest());
        if self.context.is_over() && result.is_err() {
            return None;
        }
        let mut is_intact = result.is_ok() && self.bad.is_empty();
        // What was not come to cannot be read.
        self.bad.extend(blocks.drain(read..).flat_map(|block| block.blobs).map(|(id, ..)| id));
        if result.is_ok() {
            self.context.packs_read.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if !self.is_hash_right() && self.bad.is_empty() {
                is_intact = false;
                let found = PackId::from_bytes(self.hasher.finalize().into());
                let message = format!("its bytes hash to {found}; all blobs in it are intact");
                self.context.damaged_pack(&self.pack.entry.id, message);
            }
        }
        if !self.bad.is_empty() {
            let message = format!("it does not give {}", name_blobs(self.bad.iter()));
            self.context.damaged_pack(&self.pack.entry.id, message);
            let pack = self.pack.entry.id;
            self.context.bad().blobs.extend(self.bad.into_iter().map(|id| (pack, id)));
        }
        if is_intact {
            self.context.good_pack(self.pack.entry.id, Method::Read);
        }
        Some((Method::Read, is_intact))
    }

    /// Reads and hashes the pack.
    fn hash_all(&mut self) -> Result<(), Stopped> {
        let mut at = 0;
        while at < self.size {
            if self.context.is_over() {
                return Err(Stopped);
            }
            let len = usize::try_from(self.size - at).map_or(PIECE_LEN, |left| left.min(PIECE_LEN));
            if self.scratch.window.len() < len {
                self.scratch.window.resize(len, 0);
            }
            let piece = &mut self.scratch.window[..len];
            self.context.backend().read_range(&self.key, at, piece).map_err(|_| Stopped)?;
            self.hasher.update(piece);
            at += len as u64;
            self.context.bytes_done(len as u64);
        }
        Ok(())
    }

    /// Whether all bytes, which have been read, hash to the pack's id.
    fn is_hash_right(&self) -> bool {
        PackId::from_bytes(self.hasher.finalize().into()) == self.pack.entry.id
    }

    /// What should be in the pack: as its directory says or, where that cannot be read, as segments do.
    fn expected(&mut self) -> Vec<Expected> {
        if self.pack.stored == Some(self.pack.entry.size)
            && let Ok(directory) = open_directory(self.context, &self.pack.entry, &mut self.scratch.directory)
        {
            let blocks = directory.blocks.into_iter().map(|block| Expected {
                span: block.span,
                blobs: block.blobs.iter().map(|blob| (blob.id, blob.kind, blob.offset, blob.len)).collect(),
            });
            return blocks.collect();
        }
        let Some(listing) = self.pack.listings.first() else { return Vec::new() };
        let mut entries = self.segments.entries_of(listing.segment, |number| number == listing.number);
        entries.sort_unstable_by_key(|entry| (entry.block.position, entry.offset));
        let kind = match self.pack.entry.header.kind {
            ObjectKind::DataPack => BlobKind::Data,
            _ => BlobKind::Tree,
        };
        let blocks = entries.chunk_by(|a, b| a.block == b.block).map(|group| Expected {
            span: group[0].block,
            blobs: group.iter().map(|entry| (entry.id, kind, entry.offset, entry.len)).collect(),
        });
        blocks.collect()
    }

    /// Verifies all blocks; `read` counts them.
    fn read_blocks(&mut self, blocks: &[Expected], read: &mut usize) -> Result<(), Stopped> {
        let cipher =
            self.pack.entry.header.cipher(self.context.repository.keys(), &self.context.repository.id());
        let Ok(cipher) = cipher else {
            let message = "the index has a header of another repository or key for it";
            match self.pack.is_appended() {
                true => self.context.damaged_pack(&self.pack.entry.id, message),
                false => self.context.damage("index-wrong", &self.key, message),
            }
            return Err(Stopped);
        };
        let mut end = 0;
        for block in blocks {
            // Only a segment can say something else: directories do not open then.
            let is_possible = u64::from(block.span.position) >= end
                && block.span.end() <= self.size
                && block.span.is_sane();
            if is_possible {
                end = block.span.end();
                self.fill(&block.span)?;
                self.verify(&cipher, block);
            } else {
                self.bad.extend(block.blobs.iter().map(|(id, ..)| *id));
            }
            *read += 1;
        }
        Ok(())
    }

    /// Reads and hashes on until the window holds the block.
    fn fill(&mut self, span: &BlockSpan) -> Result<(), Stopped> {
        while self.window_at + (self.filled as u64) < span.end() {
            // What lies before the block is done with.
            let done = u64::from(span.position).saturating_sub(self.window_at);
            let done = usize::try_from(done).unwrap_or(usize::MAX).min(self.filled);
            self.scratch.window.copy_within(done..self.filled, 0);
            self.window_at += done as u64;
            self.filled -= done;
            self.read_piece()?;
        }
        Ok(())
    }

    /// Reads and hashes the next piece of the pack behind what the window holds.
    fn read_piece(&mut self) -> Result<(), Stopped> {
        if self.context.is_over() {
            return Err(Stopped);
        }
        let at = self.window_at + self.filled as u64;
        let len = usize::try_from(self.size - at).map_or(PIECE_LEN, |left| left.min(PIECE_LEN));
        let end = self.filled + len;
        if self.scratch.window.len() < end {
            self.scratch.window.resize(end, 0);
        }
        let piece = &mut self.scratch.window[self.filled..end];
        if let Err(error) = self.context.backend().read_range(&self.key, at, piece) {
            self.context.damaged_pack(&self.pack.entry.id, error.to_string());
            return Err(Stopped);
        }
        self.hasher.update(piece);
        self.filled = end;
        self.context.bytes_done(len as u64);
        Ok(())
    }

    /// Reads and hashes what follows the blocks.
    fn read_rest(&mut self) -> Result<(), Stopped> {
        while self.window_at + (self.filled as u64) < self.size {
            self.window_at += self.filled as u64;
            self.filled = 0;
            self.read_piece()?;
        }
        Ok(())
    }

    fn verify(&mut self, cipher: &ObjectCipher, block: &Expected) {
        let start = usize::try_from(u64::from(block.span.position) - self.window_at)
            .expect("the window was filled with the block");
        let sealed = &mut self.scratch.window[start..start + block.span.sealed_len as usize];
        let raw = &mut self.scratch.raw;
        if pack::open_block(cipher, &block.span, sealed, &mut self.scratch.codec, raw).is_err() {
            self.bad.extend(block.blobs.iter().map(|(id, ..)| *id));
            return;
        }
        let keys = self.context.repository.keys();
        let before = self.bad.len();
        for (id, kind, offset, len) in &block.blobs {
            let bytes = raw.get(*offset as usize..).and_then(|rest| rest.get(..*len as usize));
            let is_good = bytes.is_some_and(|bytes| {
                keys.blob_id(*kind, bytes) == *id
                    // A segment does not say which of the two kinds of metadata it is.
                    || (*kind == BlobKind::Tree && keys.blob_id(BlobKind::Snapshot, bytes) == *id)
            });
            if !is_good {
                self.bad.push(*id);
            }
        }
        let good = block.blobs.len() - (self.bad.len() - before);
        self.context.blobs_verified.fetch_add(good as u64, std::sync::atomic::Ordering::Relaxed);
    }
}
