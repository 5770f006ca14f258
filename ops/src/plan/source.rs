//! Where the files of a plan come from.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Longest file of a plan.
pub const FILE_LEN_MAX: u64 = 1 << 20;
/// Most files of a plan.
pub const FILES_MAX: usize = 256;

/// One file of a plan as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it lies.
    pub path: PathBuf,
    /// What it holds.
    pub text: String,
}

/// Access to the files of a plan.
pub trait PlanFiles {
    /// Reads a file of at most `len_max` bytes.
    ///
    /// # Errors
    /// Where it cannot be read or is longer.
    fn read(&self, path: &Path, len_max: u64) -> io::Result<Vec<u8>>;

    /// Names in a directory, in any order.
    ///
    /// # Errors
    /// Where it cannot be listed.
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>>;

    /// Where a directory lies, without links and `..` on the way.
    ///
    /// # Errors
    /// Where it cannot be found.
    fn canonical(&self, directory: &Path) -> io::Result<PathBuf>;
}

/// Files of this system.
#[derive(Debug, Clone, Copy)]
pub struct SystemFiles;

impl PlanFiles for SystemFiles {
    fn read(&self, path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(len_max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > len_max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it has more than {len_max} bytes"),
            ));
        }
        Ok(bytes)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn canonical(&self, directory: &Path) -> io::Result<PathBuf> {
        directory.canonicalize()
    }
}
