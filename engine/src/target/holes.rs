//! Length and holes of files that are being restored.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, ftruncate};
use rustix::io::Errno;

use crate::format::tree::Hole;

static ZEROS: [u8; 65_536] = [0; 65_536];

/// Gives `file` the length `size` in bytes. What is new reads as zeros and takes no space, so a new file needs
/// nothing more for its holes.
pub fn prepare(file: &File, size: u64) -> io::Result<()> {
    Ok(ftruncate(file, size)?)
}

/// Makes `hole` of a file that has content read as zeros, giving the space back where the file system can. The
/// length of the file stays. A file that has the hole already is not touched.
pub fn punch(file: &File, hole: Hole) -> io::Result<()> {
    if is_there(file, hole)? {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(file, flags, hole.offset, hole.length) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, hole),
        other => Ok(other?),
    }
}

/// Whether the file has a hole in this range, but for zeros in the blocks at its ends.
fn is_there(file: &File, hole: Hole) -> io::Result<bool> {
    let end = hole.offset.saturating_add(hole.length);
    if i64::try_from(end).is_err() {
        return Ok(false);
    }
    let mut buffer = [0; 4096];
    let mut at = hole.offset;
    for _ in 0..2 {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(end),
            // There is no data until the end of the file.
            Err(Errno::NXIO) => return Ok(true),
            // Not every file system can tell.
            Err(_) => return Ok(false),
        };
        let until = rustix::fs::seek(file, SeekFrom::Hole(data)).map_or(end, |until| until.min(end));
        let length = until - data;
        // More than the rest of a block is worth giving back.
        if length > buffer.len() as u64 {
            return Ok(false);
        }
        let read = file.read_at(&mut buffer[..length as usize], data)?;
        if buffer[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at = until;
        if at == end {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes zeros over the part of `hole` that lies inside the file.
fn write_zeros(file: &File, hole: Hole) -> io::Result<()> {
    let end = hole.offset.saturating_add(hole.length).min(file.metadata()?.len());
    let mut at = hole.offset;
    while at < end {
        let length = (end - at).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..length as usize], at)?;
        at += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    const MEBIBYTE: u64 = 1 << 20;

    #[test]
    fn a_prepared_file_takes_no_space() {
        let file = tempfile::tempfile().unwrap();
        prepare(&file, 1 << 40).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 1 << 40);
        assert_eq!(metadata.blocks(), 0);
        prepare(&file, 5).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 5);
        assert!(prepare(&file, u64::MAX).is_err());
    }

    #[test]
    fn both_ways_zero_exactly_the_range_and_keep_the_length() {
        let ways: [fn(&File, Hole) -> io::Result<()>; 2] = [punch, write_zeros];
        for make_hole in ways {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&vec![7; MEBIBYTE as usize], 0).unwrap();
            make_hole(&file, Hole { offset: 4095, length: 200_001 }).unwrap();
            make_hole(&file, Hole { offset: MEBIBYTE - 10, length: 1_000 }).unwrap();
            let mut read = vec![1; MEBIBYTE as usize];
            file.read_exact_at(&mut read, 0).unwrap();
            let is_zero = |at: usize| (4095..204_096).contains(&at) || at >= read.len() - 10;
            assert!(read.iter().enumerate().all(|(at, byte)| *byte == if is_zero(at) { 0 } else { 7 }));
            assert_eq!(file.metadata().unwrap().len(), MEBIBYTE);
        }
    }

    #[test]
    fn a_hole_beyond_all_offsets_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        prepare(&file, 10).unwrap();
        assert!(punch(&file, Hole { offset: u64::MAX, length: 2 }).is_err());
        assert!(write_zeros(&file, Hole { offset: u64::MAX, length: 2 }).is_ok());
        assert_eq!(file.metadata().unwrap().len(), 10);
    }
}
