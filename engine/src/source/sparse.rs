//! Holes of sparse files, as the file system reports them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::format::tree::Hole;

/// Shorter holes are read as the zeros they are: no file system leaves out less than a block.
pub const HOLE_BYTES_MIN: u64 = 4096;

/// The holes in the first `size` bytes of `file`, ascending and not touching; of more than `most`, the largest, and of
/// equal ones the first: the others are read as the zeros they are. `allocated` is the space that it takes, as
/// [`SourceStat`](super::SourceStat) has it: where that is no less than `size`, the file system is not asked.
///
/// Files that the file system compresses, keeps inline or cannot tell about have none. The file's position is
/// its start afterwards. A file that changes meanwhile may get holes that are no longer there: the caller
/// compares stats before and after reading. Takes 16 bytes of memory a hole that is kept, however many there are.
///
/// # Errors
/// Those of `lseek`, except that it does not know of holes.
pub fn holes(file: &File, size: u64, allocated: u64, most: usize) -> io::Result<Vec<Hole>> {
    let mut holes = Largest::new(most);
    if allocated >= size {
        return Ok(Vec::new());
    }
    let mut position = 0;
    while let Some(hole) = next_hole(file, position, size)? {
        // Always on by a block, lest a hole that is being filled, or a confused file system, hold us here.
        position = hole.offset + hole.length.max(HOLE_BYTES_MIN);
        if hole.length >= HOLE_BYTES_MIN {
            holes.push(hole);
        }
    }
    seek(file, SeekFrom::Start(0))?;
    Ok(holes.in_order())
}

/// The largest of the holes that came so far, of equal ones the first.
struct Largest {
    most: usize,
    /// Length and offset of each. The first to go is on top.
    kept: BinaryHeap<Reverse<(u64, Reverse<u64>)>>,
    /// The last one, which may not be whole.
    last: Option<Hole>,
}

impl Largest {
    fn new(most: usize) -> Self {
        Self { most, kept: BinaryHeap::new(), last: None }
    }

    /// Adds a hole behind the others. If it touches the last one, what lay between them was punched out meanwhile.
    fn push(&mut self, hole: Hole) {
        match &mut self.last {
            Some(last) if last.offset + last.length == hole.offset => last.length += hole.length,
            last => {
                if let Some(whole) = last.replace(hole) {
                    self.keep(whole);
                }
            }
        }
    }

    fn keep(&mut self, hole: Hole) {
        self.kept.push(Reverse((hole.length, Reverse(hole.offset))));
        if self.kept.len() > self.most {
            self.kept.pop();
        }
    }

    fn in_order(mut self) -> Vec<Hole> {
        if let Some(last) = self.last.take() {
            self.keep(last);
        }
        let hole = |Reverse((length, Reverse(offset)))| Hole { offset, length };
        let mut holes: Vec<Hole> = self.kept.into_iter().map(hole).collect();
        holes.sort_unstable_by_key(|hole| hole.offset);
        holes
    }
}

/// The first hole at or after `position`. Its length is 0 where data was put in it meanwhile.
fn next_hole(file: &File, position: u64, size: u64) -> io::Result<Option<Hole>> {
    if position >= size {
        return Ok(None);
    }
    let offset = match seek(file, SeekFrom::Hole(position)) {
        Ok(offset) => offset,
        // Unsupported, or the file has become shorter than `position`.
        Err(Errno::INVAL | Errno::NOTSUP | Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if offset >= size {
        return Ok(None);
    }
    let end = match seek(file, SeekFrom::Data(offset)) {
        Ok(end) => end.clamp(offset, size),
        Err(Errno::NXIO) => size,
        Err(error) => return Err(error.into()),
    };
    Ok(Some(Hole { offset, length: end - offset }))
}

#[cfg(test)]
mod tests {
    use std::io::Seek;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    const KIB: u64 = 1024;

    /// A file of `size` bytes with data only in `data`.
    fn sparse(size: u64, data: &[(u64, u64)]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        for &(offset, length) in data {
            file.write_all_at(&vec![1; usize::try_from(length).unwrap()], offset).unwrap();
        }
        file
    }

    fn holes_of(file: &File) -> Vec<(u64, u64)> {
        let stat = file.metadata().unwrap();
        let holes = holes(file, stat.len(), stat.blocks() * 512, 100).unwrap();
        holes.iter().map(|hole| (hole.offset, hole.length)).collect()
    }

    #[test]
    fn dense_and_empty_files_have_none() {
        assert_eq!(holes_of(&sparse(0, &[])), []);
        assert_eq!(holes_of(&sparse(100 * KIB, &[(0, 100 * KIB)])), []);
    }

    #[test]
    fn a_tebibyte_of_nothing_is_one_hole() {
        assert_eq!(holes_of(&sparse(1 << 40, &[])), [(0, 1 << 40)]);
    }

    #[test]
    fn holes_lie_before_between_and_after_data() {
        // Aligned to 64 KiB, the largest block size in use.
        let file = sparse(1024 * KIB, &[(128 * KIB, 64 * KIB), (512 * KIB, 128 * KIB)]);
        let expected = [(0, 128 * KIB), (192 * KIB, 320 * KIB), (640 * KIB, 384 * KIB)];
        assert_eq!(holes_of(&file), expected);
    }

    #[test]
    fn a_hole_may_end_in_the_middle_of_a_block() {
        assert_eq!(holes_of(&sparse(256 * KIB + 1, &[(0, 64 * KIB)])), [(64 * KIB, 192 * KIB + 1)]);
        assert_eq!(holes_of(&sparse(4095, &[])), [], "too small to be worth a record");
    }

    #[test]
    fn holes_that_touch_become_one() {
        let mut holes = Largest::new(3);
        for offset in [0, 8192, 12_288, 40_960] {
            holes.push(Hole { offset, length: 4096 });
        }
        let found: Vec<_> = holes.in_order().iter().map(|hole| (hole.offset, hole.length)).collect();
        assert_eq!(found, [(0, 4096), (8192, 8192), (40_960, 4096)]);
    }

    #[test]
    fn of_too_many_holes_the_largest_stay_in_their_order_and_no_other_in_memory() {
        let all = [(0, 10), (20, 5), (30, 40), (80, 10), (100, 10)];
        let largest = |count: u64, most| {
            let mut holes = Largest::new(most);
            for (offset, length) in all
                .iter()
                .cycle()
                .take(usize::try_from(count).unwrap())
                .enumerate()
                .map(|(number, (offset, length))| (offset + 120 * (number as u64 / 5), *length))
            {
                holes.push(Hole { offset, length });
                assert!(holes.kept.len() <= most, "{} of {most}", holes.kept.len());
            }
            holes.in_order().iter().map(|hole| (hole.offset, hole.length)).collect::<Vec<_>>()
        };
        assert_eq!(largest(5, 5), all);
        assert_eq!(largest(5, 3), [(0, 10), (30, 40), (80, 10)]);
        assert_eq!(largest(5, 1), [(30, 40)]);
        assert_eq!(largest(0, 1), []);
        assert_eq!(largest(5, 0), []);
        let longest: Vec<_> = (0..100).map(|round| (30 + 120 * round, 40)).collect();
        assert_eq!(largest(10_000, 100), longest, "of equal ones the first");
    }

    #[test]
    fn a_file_of_many_holes_is_told_by_the_largest() {
        let file = sparse(2048 * KIB, &[(64 * KIB, 64 * KIB), (256 * KIB, 64 * KIB), (960 * KIB, 64 * KIB)]);
        let stat = file.metadata().unwrap();
        let found = holes(&file, stat.len(), stat.blocks() * 512, 2).unwrap();
        let found: Vec<_> = found.iter().map(|hole| (hole.offset, hole.length)).collect();
        assert_eq!(found, [(320 * KIB, 640 * KIB), (1024 * KIB, 1024 * KIB)]);
    }

    #[test]
    fn is_not_asked_about_dense_files_and_leaves_the_position_at_the_start() {
        let file = sparse(1024 * KIB, &[(0, 64 * KIB)]);
        assert_eq!(holes(&file, 1024 * KIB, 1024 * KIB, 100).unwrap(), []);
        assert_eq!(holes_of(&file).len(), 1);
        assert_eq!((&file).stream_position().unwrap(), 0);
    }

    #[test]
    fn a_file_that_shrank_ends_the_search() {
        let file = sparse(256 * KIB, &[(0, 64 * KIB), (128 * KIB, 128 * KIB)]);
        file.set_len(10).unwrap();
        let found = holes(&file, 256 * KIB, 0, 100).unwrap();
        assert!(found.iter().all(|hole| hole.offset + hole.length <= 256 * KIB), "{found:?}");
    }
}
