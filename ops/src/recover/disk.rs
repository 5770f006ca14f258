//! What recoveries ask of the file system beyond the usual: two names exchanged at once, directories made durable, free space, mounts.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with, statvfs};
use rustix::io::Errno;

/// The file system, as far as tests want to play it.
pub trait Disk {
    /// Exchanges what two names lead to, in one step.
    ///
    /// # Errors
    /// Where it cannot; see [`is_unsupported`].
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;

    /// Gives something another name, which nothing has.
    ///
    /// # Errors
    /// Where it cannot, or something has that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Waits until the names in a directory are on disk.
    ///
    /// # Errors
    /// Where they cannot get there.
    fn sync(&self, directory: &Path) -> io::Result<()>;

    /// Bytes that can be written to the file system of a directory.
    ///
    /// # Errors
    /// Where it does not tell.
    fn free(&self, directory: &Path) -> io::Result<u64>;

    /// Where file systems are mounted.
    ///
    /// # Errors
    /// Where the system does not tell.
    fn mounts(&self) -> io::Result<Vec<PathBuf>>;
}

/// This system's.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(io::Error::from) {
            Err(error) if is_unsupported(&error) => {}
            result => return result,
        }
        match fs::symlink_metadata(to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
            Err(error) => Err(error),
        }
    }

    fn sync(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn free(&self, directory: &Path) -> io::Result<u64> {
        let found = statvfs(directory)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn mounts(&self) -> io::Result<Vec<PathBuf>> {
        Ok(parse_mounts(&fs::read("/proc/self/mountinfo")?))
    }
}

/// Whether a file system, or the system, does not know what was asked of it.
pub fn is_unsupported(error: &io::Error) -> bool {
    let unknown = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP];
    error.raw_os_error().is_some_and(|code| unknown.iter().any(|errno| errno.raw_os_error() == code))
}

/// The fifth field of each line, in which blanks are written as `\040`.
fn parse_mounts(text: &[u8]) -> Vec<PathBuf> {
    let fields = text.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    fields.map(|field| PathBuf::from(OsString::from_vec(unescaped(field)))).collect()
}

fn unescaped(field: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), field);
    while let Some((first, behind)) = rest.split_first() {
        let digits =
            behind.get(..3).filter(|_| *first == b'\\').and_then(|octal| std::str::from_utf8(octal).ok());
        match digits.and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_their_blanks() {
        let text = b"22 1 0:1 / / rw - ext4 /dev/a rw\n23 22 0:2 / /mnt/a\\040b\\134c rw - tmpfs none rw\nhalf a line\n";
        assert_eq!(parse_mounts(text), [Path::new("/"), Path::new("/mnt/a b\\c")]);
        assert!(SystemDisk.mounts().expect("listed").contains(&PathBuf::from("/")));
    }

    #[test]
    fn a_name_that_is_taken_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        fs::write(&one, "1").expect("written");
        fs::write(&other, "2").expect("written");
        assert_eq!(SystemDisk.rename(&one, &other).expect_err("taken").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&other).expect("there"), b"2");
        assert!(SystemDisk.free(folder.path()).expect("told") > 0);
    }
}
