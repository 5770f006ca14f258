//! Files that only grow, as logs do: what was there when one was opened is stored, and what has come behind it since then is for
//! the next backup.
//!
//! That a file has only grown is not taken on trust. What was read is read again: where it is the same both times, it is what
//! was there at the moment in between.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

use blake3::{Hash, Hasher};

use crate::backup::files::is_same;
use crate::source::SourceStat;

const BUFFER_LEN: usize = 256 << 10;

/// Whether a file of which `read` bytes were read may have done nothing but grow. Where its state tells of no change at all, the
/// next backup could miss one of the same moment: then it is not known.
pub(super) fn may_have_grown(before: &SourceStat, after: &SourceStat, read: u64) -> bool {
    read >= before.size
        && after.inode == before.inode
        && after.size >= before.size
        && !is_same(before, after, before.size)
}

/// Whether the first `length` bytes of a file have this hash.
pub(super) fn begins_with(
    file: &File,
    length: u64,
    hash: &Hash,
    is_cancelled: &dyn Fn() -> bool,
) -> io::Result<bool> {
    let (mut hasher, mut buffer, mut at) = (Hasher::new(), vec![0; BUFFER_LEN], 0);
    while at < length {
        if is_cancelled() {
            return Ok(false);
        }
        let want = usize::try_from(length - at).unwrap_or(usize::MAX).min(BUFFER_LEN);
        match file.read_at(&mut buffer[..want], at) {
            Ok(0) => return Ok(false),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                at += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hasher.finalize() == *hash)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn only_what_is_still_there_is_a_beginning() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let content = vec![7; 3 * BUFFER_LEN + 1];
        std::fs::write(&path, &content).expect("written");
        let mut file = File::options().read(true).append(true).open(&path).expect("opened");
        let length = content.len() as u64;
        let hash = blake3::hash(&content);
        let begins = |file: &File| begins_with(file, length, &hash, &|| false).expect("read");
        assert!(begins(&file));
        let before = SourceStat::of_file(&file).expect("known");
        assert!(!may_have_grown(&before, &before, length), "nothing tells the next backup of a change");
        file.write_all(b"more").expect("written");
        let after = SourceStat::of_file(&file).expect("known");
        assert!(may_have_grown(&before, &after, length) && begins(&file));
        assert!(!may_have_grown(&before, &after, length - 1), "it was cut short meanwhile");
        assert!(!may_have_grown(&after, &before, after.size), "it has shrunk");
        assert!(!begins_with(&file, length, &hash, &|| true).expect("read"), "cancelled");
        let write = File::options().write(true).open(&path).expect("opened");
        write.write_at(b"x", length - 1).expect("written");
        assert!(!begins(&file), "its last byte is another one");
        write.set_len(10).expect("cut");
        assert!(!begins(&file));
    }
}
