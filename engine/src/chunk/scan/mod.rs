//! The scan for candidates: all positions of a buffer where the data could be cut, many at a time.
//!
//! A gear hash of 32 bits depends on the last [`WINDOW`] bytes only, so whether a position can be a cut does not depend
//! on where its chunk begins, and positions far apart can be hashed side by side: a block of the buffer is
//! split into as many equal lanes as a vector has, each lane is hashed from a window before its first position on, and a vector
//! step moves all lanes one byte ahead. What comes out is the list of *candidates*, the positions whose hash is below the relaxed
//! limit; the [`Cutter`](super::Cutter) takes the cuts from it in order.
//!
//! | scanner  | lanes | table lookup                                        | needs                            |
//! |----------|------:|-----------------------------------------------------|----------------------------------|
//! | avx512   |    16 | four byte planes of 256 entries in vector registers | AVX-512 F, BW, VBMI              |
//! | avx2     |     8 | loads; the processor's gather is slower             | AVX2                             |
//! | portable |       | the `fastcdc` crate, byte by byte                   | nothing, other processors use it |
//!
//! The processor is asked once. A [`Scanner`] exists only where its instructions do: that makes calling them sound.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(super) mod portable;

use crate::chunk::gear::GearTable;

/// Bytes that decide whether a position is a candidate, the byte at the position being the last.
pub(super) const WINDOW: usize = 32;

/// A position where the data could be cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// Offset in what was scanned.
    pub at: usize,
    /// The gear hash there.
    pub hash: u32,
}

/// Where a scan puts its candidates: a slice filled from its beginning.
#[derive(Debug)]
pub(super) struct Found<'a> {
    list: &'a mut [Candidate],
    len: usize,
    /// There were more candidates than room: the list says nothing.
    overflowed: bool,
}

impl<'a> Found<'a> {
    /// An empty list with room for as many as the slice has.
    pub fn new(list: &'a mut [Candidate]) -> Self {
        Self { list, len: 0, overflowed: false }
    }

    fn push(&mut self, at: usize, hash: u32) {
        match self.list.get_mut(self.len) {
            Some(free) => {
                *free = Candidate { at, hash };
                self.len += 1;
            }
            None => self.overflowed = true,
        }
    }

    /// Adds those of some lanes' hashes that are below the limit: `hashes[step][lane]`, the first at `at`, the
    /// next step's one byte further, the next lane's `stride` bytes.
    #[cfg(target_arch = "x86_64")]
    #[cold]
    fn push_below<const LANES: usize>(
        &mut self,
        limit: u32,
        hashes: &[[u32; LANES]],
        at: usize,
        stride: usize,
    ) {
        for (step, hashes) in hashes.iter().enumerate() {
            for (lane, hash) in hashes.iter().enumerate() {
                if *hash < limit {
                    self.push(at + lane * stride + step, *hash);
                }
            }
        }
    }
}

/// A way to scan that this processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanner(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Scanner {
    /// The `fastcdc` crate: for every processor, and what the others are compared with.
    pub const PORTABLE: Self = Self(Kind::Portable);

    /// The scanners of this processor, the fastest first: all of them are compared by the tests.
    pub fn available() -> Vec<Self> {
        let mut available = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vbmi")
            {
                available.push(Self(Kind::Avx512));
            }
            if is_x86_feature_detected!("avx2") {
                available.push(Self(Kind::Avx2));
            }
        }
        available.push(Self::PORTABLE);
        available
    }

    /// The one that backups use: the fastest.
    pub fn best() -> Self {
        static BEST: std::sync::OnceLock<Scanner> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| Self::available().first().copied().unwrap_or(Self::PORTABLE))
    }

    /// Its name, for measurements.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
        }
    }

    /// Finds the candidates of `bytes` from `from` on, in order: positions whose hash is below `limit`. Returns where it
    /// stopped: at the end of `bytes` or `block_len` or so bytes behind `from`, at least one.
    /// None if there are more than `found` has room for.
    ///
    /// # Panics
    ///
    /// If less than a window is before `from`, or nothing behind it.
    pub(super) fn scan(
        self,
        gear: &GearTable,
        bytes: &[u8],
        from: usize,
        block_len: usize,
        limit: u32,
        found: &mut Found<'_>,
    ) -> Option<usize> {
        assert!(from >= WINDOW && from < bytes.len(), "nothing to scan at {from} of {}", bytes.len());
        let lanes = self.lanes();
        let len = (bytes.len() - from).min(block_len.max(1));
        let fits = |stride: &&usize| lanes * **stride <= len;
        // A block may begin before `from`, to end with the bytes: better than single steps.
        let shortest = lanes * STRIDES[STRIDES.len() - 1];
        let (start, stride) = match STRIDES.iter().find(fits) {
            Some(stride) => (from, *stride),
            None if bytes.len() >= WINDOW + shortest && len > shortest / 8 => {
                (from.min(bytes.len() - shortest), shortest / lanes)
            }
            None => {
                portable::candidates(gear, &bytes[from - WINDOW..from + len], limit, from, found);
                return (!found.overflowed).then_some(from + len);
            }
        };
        let end = start + lanes * stride;
        self.block(gear, &bytes[start - WINDOW..end], stride, limit, found);
        if found.overflowed {
            return None;
        }
        found.settle(start, from);
        Some(end)
    }

    /// How many positions it hashes at once.
    fn lanes(self) -> usize {
        match self.0 {
            Kind::Portable => 1,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => avx512::LANES,
        }
    }

    /// Scans a block of lanes with a window before it. Offsets found count from the end of that window; they are in
    /// no order.
    #[cfg_attr(
        target_arch = "x86_64",
        allow(unsafe_code, reason = "calls functions whose instructions this processor has")
    )]
    fn block(self, gear: &GearTable, block: &[u8], stride: usize, limit: u32, found: &mut Found<'_>) {
        match self.0 {
            Kind::Portable => portable::candidates(gear, block, limit, 0, found),
            // SAFETY: a scanner of this kind is made only where the processor has been seen to have AVX2.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::block(gear, block, stride, limit, found) },
            // SAFETY: a scanner of this kind is made only where the processor has been seen to have AVX-512 F, BW
            // and VBMI.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { avx512::block(gear, block, stride, limit, found) },
        }
    }
}

/// Lengths of lanes, the longest first. Odd numbers of cache lines: lanes a power of two apart would share the same few
/// lines of the cache.
const STRIDES: [usize; 4] = [33 * 64, 9 * 64, 3 * 64, 64];

impl Found<'_> {
    /// Makes offsets of a block at `start` offsets of the whole, in order, and drops those before `from`.
    fn settle(&mut self, start: usize, from: usize) {
        let list = &mut self.list[..self.len];
        for candidate in list.iter_mut() {
            candidate.at += start;
        }
        list.sort_unstable();
        let early = list.partition_point(|candidate| candidate.at < from);
        list.copy_within(early.., 0);
        self.len -= early;
    }

    /// What was found, in order.
    pub fn as_slice(&self) -> &[Candidate] {
        &self.list[..self.len]
    }
}
