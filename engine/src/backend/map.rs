//! Memory maps of stored objects: the only place in the engine that maps files.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use memmap2::{Mmap, MmapOptions};

/// Maps the first `size` bytes of an object's file, which must have at least that many.
///
/// # Errors
/// `InvalidInput` if `size` is 0, which cannot be mapped, or what the system reports.
pub(super) fn map_object(file: &File, size: usize) -> io::Result<Mmap> {
    if size == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty object cannot be mapped"));
    }
    // SAFETY: the bytes under a map must not change and the file must not shrink while the map lives. The
    // caller hands over objects of a repository only, never a user's file: they are private (folders have
    // mode 0700), read-only (mode 0400), published whole, and no code of this crate opens one for writing
    // again; deleting one leaves its bytes to those who have it mapped. What remains is somebody with the
    // owner's rights who rewrites an object in place meanwhile: changed bytes fail authentication, and a
    // truncated file ends the process with SIGBUS.
    unsafe { MmapOptions::new().len(size).map(file) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn maps_what_the_file_holds_and_refuses_nothing() {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(b"object").expect("written");
        assert_eq!(&map_object(&file, 6).expect("mapped")[..], b"object");
        assert_eq!(map_object(&file, 0).expect_err("empty").kind(), io::ErrorKind::InvalidInput);
    }
}
