//! Writing large new files past the page cache.
//!
//! What a restore writes is not read again soon, and to fill fresh pages of the cache costs more time than to hand
//! whole pages to the disk. So where the file system is known to do it well, the whole pages of a large new file are
//! written with `O_DIRECT`, and only the pages that are shared with a neighbouring piece go through the cache. No
//! page goes both ways.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, OFlags, fallocate, fstatfs};
use rustix::io::Errno;

use super::handle::reopen;

/// Direct writes begin and end at multiples of this, in the file and in memory.
const PAGE: usize = 4096;

/// Fewer bytes than this are not worth a write of their own.
const DIRECT_LEN_MIN: usize = 64 << 10;

/// Most bytes of one direct write, and the length of a [`Bounce`].
const DIRECT_LEN_MAX: usize = 1 << 20;

/// Magic numbers of ext4 and XFS. Others compress what comes through the cache (btrfs), or gain nothing.
const FILE_SYSTEMS: [u64; 2] = [0xef53, 0x5846_5342];

/// A buffer that direct writes go through, for one thread.
#[derive(Debug, Default)]
pub struct Bounce {
    bytes: Vec<u8>,
}

impl Bounce {
    fn aligned(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes = vec![0; DIRECT_LEN_MAX + PAGE];
        }
        let start = self.bytes.as_ptr().align_offset(PAGE).min(PAGE);
        &mut self.bytes[start..start + DIRECT_LEN_MAX]
    }
}

/// A file that is open for writing.
#[derive(Debug)]
pub struct Output {
    file: File,
    direct: Option<File>,
}

impl Output {
    /// Files shorter than this many bytes are better off in the cache.
    pub const LARGE: u64 = 1 << 20;

    /// Writes through the cache only.
    pub fn cached(file: File) -> Self {
        Self { file, direct: None }
    }

    /// Writes whole pages past the cache, if the file system is one that does so well.
    pub fn large(file: File) -> Self {
        // Each field has another type on another platform.
        #[allow(clippy::unnecessary_cast)]
        let is_known = fstatfs(&file).is_ok_and(|stat| FILE_SYSTEMS.contains(&(stat.f_type as u64)))
            // Larger pages would go both ways.
            && rustix::param::page_size() == PAGE;
        let direct = if is_known { reopen(file.as_fd(), OFlags::WRONLY | OFlags::DIRECT).ok() } else { None };
        Self { file, direct: direct.map(File::from) }
    }

    /// The file, for everything but writing content.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives a new file its length, and its space too where that makes direct writes possible side by side. When
    /// there is not enough space, the file keeps none.
    ///
    /// # Errors
    /// What the file system says.
    pub fn reserve(&self, size: u64) -> io::Result<()> {
        if self.direct.is_some() && size > 0 {
            match fallocate(&self.file, FallocateFlags::empty(), 0, size) {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
                Err(errno) => {
                    let _ = self.file.set_len(0);
                    return Err(errno.into());
                }
            }
        }
        super::holes::prepare(&self.file, size)
    }

    /// Writes all of `bytes` at the offset `at`.
    ///
    /// # Errors
    /// What the file system says; a part may be written then.
    pub fn write_all_at(&self, bytes: &[u8], at: u64, bounce: &mut Bounce) -> io::Result<()> {
        let Some(direct) = &self.direct else { return self.file.write_all_at(bytes, at) };
        // Below a page, so it fits.
        let head = ((PAGE as u64 - at % PAGE as u64) % PAGE as u64) as usize;
        let whole = bytes.len().saturating_sub(head) / PAGE * PAGE;
        if whole < DIRECT_LEN_MIN {
            return self.file.write_all_at(bytes, at);
        }
        let (head, rest) = bytes.split_at(head);
        let (whole, tail) = rest.split_at(whole);
        let mut next = at + head.len() as u64;
        for piece in whole.chunks(DIRECT_LEN_MAX) {
            let aligned = &mut bounce.aligned()[..piece.len()];
            aligned.copy_from_slice(piece);
            write_direct(direct, &self.file, aligned, next)?;
            next += piece.len() as u64;
        }
        self.file.write_all_at(head, at)?;
        self.file.write_all_at(tail, next)
    }
}

fn write_direct(direct: &File, cached: &File, piece: &[u8], at: u64) -> io::Result<()> {
    let mut done = 0;
    while done < piece.len() {
        match direct.write_at(&piece[done..], at + done as u64) {
            // What is left of a write that was cut short, or not taken at all, may not be aligned.
            Ok(0) => break,
            Ok(len) if len % PAGE != 0 => {
                done += len;
                break;
            }
            Ok(len) => done += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
            Err(error) => return Err(error),
        }
    }
    cached.write_all_at(&piece[done..], at + done as u64)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// Bytes that differ from place to place.
    fn pattern(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn pieces_of_every_alignment_make_up_the_file_both_ways() {
        let bytes = pattern(5_000_011);
        for make in [Output::large, Output::cached] {
            let output = make(tempfile::tempfile().unwrap());
            output.reserve(bytes.len() as u64).unwrap();
            let mut bounce = Bounce::default();
            let cuts = [0, 1, 4096, 70_000, 70_001, 1_200_000, 1_204_096, 1_300_000, 4_900_000, bytes.len()];
            let mut pieces: Vec<_> = cuts.windows(2).map(|cut| cut[0]..cut[1]).collect();
            pieces.rotate_left(4);
            for piece in pieces {
                output.write_all_at(&bytes[piece.clone()], piece.start as u64, &mut bounce).unwrap();
            }
            let mut found = vec![0; bytes.len()];
            output.file().read_exact_at(&mut found, 0).unwrap();
            assert!(found == bytes);
            assert_eq!(output.file().metadata().unwrap().len(), bytes.len() as u64);
        }
    }

    #[test]
    fn threads_write_one_file_side_by_side() {
        let bytes = pattern(6_000_000);
        let output = Output::large(tempfile::tempfile().unwrap());
        output.reserve(bytes.len() as u64).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (output, bytes) = (&output, &bytes);
                scope.spawn(move || {
                    let mut bounce = Bounce::default();
                    for (number, piece) in bytes.chunks(333_333).enumerate().skip(thread).step_by(3) {
                        output.write_all_at(piece, number as u64 * 333_333, &mut bounce).unwrap();
                    }
                });
            }
        });
        let mut found = vec![0; bytes.len()];
        output.file().read_exact_at(&mut found, 0).unwrap();
        assert!(found == bytes);
    }

    #[test]
    fn what_cannot_be_had_is_an_error_and_takes_no_space() {
        let output = Output::large(tempfile::tempfile().unwrap());
        let reserved = output.reserve(u64::MAX >> 1);
        let found = output.file().metadata().unwrap();
        // A file system in memory has room for a hole of any length.
        assert!(reserved.is_ok() != (found.len() == 0), "{reserved:?}, {} bytes", found.len());
        assert_eq!(found.blocks(), 0);
    }
}
