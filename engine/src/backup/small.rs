//! Small files: a worker opens, reads, cuts and stores them whole, with their metadata, so that the walk spends
//! next to nothing on each.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use serde_bytes::ByteBuf;

use crate::backup::assemble::FrameId;
use crate::backup::files::{self, RETRIES};
use crate::backup::growing;
use crate::backup::links::LinkKey;
use crate::backup::scan::{Before, Dir};
use crate::format::tree::{Metadata, Node};
use crate::source::{MetadataReader, SourceKind, SourceStat};

/// A file up to this size is read by a worker.
pub(super) const SMALL_LEN_MAX: u64 = 256 << 10;

/// A file to be read, and the place in its directory that is reserved for it: whoever has the job holds it.
#[derive(Debug)]
pub(super) struct FileJob {
    pub dir: Arc<Dir>,
    pub name: ByteBuf,
    pub frame: FrameId,
    pub slot: usize,
    /// How parent snapshots have a file of this name.
    pub before: Before,
    /// The file as others may ask for it: one with other names that is read under this one.
    pub link: Option<LinkKey>,
}

/// What came of a small file.
#[derive(Debug)]
pub(super) enum FileOutcome {
    /// It is stored. Problems are parts of the metadata that are missing.
    Stored { node: Box<Node>, size: u64, unstable: bool, problems: Vec<String> },
    /// It cannot be read.
    Failed(io::Error),
    /// It is no file any more.
    NotFile,
    /// It is larger than it was, or has holes: not for a worker.
    Large,
}

/// Small files that go to a worker together, and what became of them.
#[derive(Debug, Default)]
pub(super) struct FileBatch {
    pub jobs: Vec<FileJob>,
    /// One for each job, from the worker.
    pub outcomes: Vec<FileOutcome>,
    /// Bytes of the files, as far as known.
    pub bytes: u64,
    /// Distinct directories.
    pub dirs: usize,
}

impl FileBatch {
    pub fn push(&mut self, job: FileJob, size: u64) {
        if self.jobs.last().is_none_or(|last| !Arc::ptr_eq(&last.dir, &job.dir)) {
            self.dirs += 1;
        }
        self.bytes += size;
        self.jobs.push(job);
    }

    pub fn clear(&mut self) {
        self.jobs.clear();
        self.outcomes.clear();
        (self.bytes, self.dirs) = (0, 0);
    }
}

/// A small file that was read.
#[derive(Debug)]
pub(super) struct SmallFile {
    pub metadata: Metadata,
    pub problems: Vec<String>,
    /// Whether it changed while it was read, every time.
    pub unstable: bool,
}

/// Reads small files into one buffer, one after the other.
#[derive(Debug)]
pub(super) struct SmallReader {
    /// The content of the last one.
    pub bytes: Vec<u8>,
    metadata: MetadataReader,
    /// Whether files may have grown while they were read: see [`growing`].
    growing: bool,
}

impl SmallReader {
    pub fn new(growing: bool) -> Self {
        Self { bytes: Vec::new(), metadata: MetadataReader::default(), growing }
    }

    /// Reads a file; its content is in `bytes` afterwards.
    pub fn read(&mut self, dir: &Dir, name: &[u8]) -> Result<SmallFile, FileOutcome> {
        let file = dir.handle.open_file(name).map_err(FileOutcome::Failed)?;
        let mut before = SourceStat::of_file(&file).map_err(FileOutcome::Failed)?;
        let mut attempt = 0;
        let unstable = loop {
            let settled = before.settle(&file).map_err(FileOutcome::Failed)?;
            if before.kind != SourceKind::File {
                return Err(FileOutcome::NotFile);
            }
            if before.size > SMALL_LEN_MAX || before.allocated < before.size.min(1) {
                return Err(FileOutcome::Large);
            }
            self.fill(&file, before.size).map_err(FileOutcome::Failed)?;
            let after = SourceStat::of_file(&file).map_err(FileOutcome::Failed)?;
            if settled && files::is_same(&before, &after, self.bytes.len() as u64) {
                break false;
            }
            if self.growing && self.has_only_grown(&file, &before, &after).map_err(FileOutcome::Failed)? {
                break false;
            }
            if attempt == RETRIES {
                break true;
            }
            attempt += 1;
            before = after;
        };
        let mut problems = Vec::new();
        let metadata = self.metadata.of_open(&file, &before, &mut |error| problems.push(error.to_string()));
        Ok(SmallFile { metadata, problems, unstable })
    }

    /// Whether a file that has changed has done nothing but grow: then what was there at first is left in `bytes`.
    fn has_only_grown(&mut self, file: &File, before: &SourceStat, after: &SourceStat) -> io::Result<bool> {
        if !growing::may_have_grown(before, after, self.bytes.len() as u64) {
            return Ok(false);
        }
        self.bytes.truncate(usize::try_from(before.size).expect("small files are small"));
        growing::begins_with(file, before.size, &blake3::hash(&self.bytes), &|| false)
    }

    /// Reads what there is, up to a little more than `size` bytes: that shows at once whether the file has grown.
    fn fill(&mut self, file: &File, size: u64) -> io::Result<()> {
        let want = usize::try_from(size).expect("small files are small") + 1;
        self.bytes.clear();
        self.bytes.reserve(want);
        while self.bytes.len() < want {
            let offset = self.bytes.len() as u64;
            match rustix::io::pread(file, spare_capacity(&mut self.bytes), offset) {
                // There was room for more: a file that ends just where it should is not asked again. Had it grown
                // behind our back, its size would tell.
                Ok(read) if read == 0 || self.bytes.len() + 1 == want => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn what_was_there_first_is_left_of_a_file_that_grew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        std::fs::write(&path, "first").expect("written");
        let file = File::options().read(true).write(true).open(&path).expect("opened");
        let before = SourceStat::of_file(&file).expect("known");
        file.write_all_at(b" and more", 5).expect("written");
        let after = SourceStat::of_file(&file).expect("known");
        let mut reader = SmallReader::new(true);
        reader.fill(&file, before.size).expect("read");
        assert!(reader.bytes.starts_with(b"first "), "a little more shows that it has grown");
        assert!(reader.has_only_grown(&file, &before, &after).expect("read"));
        assert_eq!(reader.bytes, b"first");
        file.write_all_at(b"F", 0).expect("written");
        assert!(!reader.has_only_grown(&file, &before, &after).expect("read"), "it is not what was read");
        assert!(!reader.has_only_grown(&file, &before, &before).expect("read"));
    }
}
