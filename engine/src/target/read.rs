//! Opening files of the target to look at their content only.

use std::fs::File;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::error::TargetError;
use super::name::RelativePath;
use super::root::TargetRoot;
use super::stat::EntryKind;

impl TargetRoot {
    /// Opens the regular file `path` for reading; `None` if there is none. Changes nothing, not even rights, and
    /// so takes files with several names too. Anything else in its place is [`TargetError::InTheWay`], and neither
    /// followed nor waited for.
    pub fn open_to_read(&self, path: &RelativePath) -> Result<Option<File>, TargetError> {
        const READ: &str = "read the file";
        // Asked first, because opening a device can have effects; the open itself cannot be held up either.
        match self.stat(path)? {
            None => return Ok(None),
            Some(stat) if stat.kind != EntryKind::File => {
                return Err(TargetError::InTheWay { operation: READ, path: path.clone(), found: stat.kind });
            }
            Some(_) => {}
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        match self.in_parent(READ, path, |parent, name| openat(parent, name, flags, Mode::empty())) {
            Err(error) if error.is(Errno::NOENT) => Ok(None),
            other => other.map(|file| Some(file.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::test_support::{RESOLUTIONS, Sandbox, outcome, path};

    #[test]
    fn files_are_read_and_links_and_pipes_are_not() {
        for resolution in RESOLUTIONS {
            let sandbox = Sandbox::new();
            let root = sandbox.open(resolution);
            std::fs::write(sandbox.at("file"), "text").unwrap();
            std::os::unix::fs::symlink(sandbox.outside().join("victim"), sandbox.at("link")).unwrap();
            rustix::fs::mknodat(
                rustix::fs::CWD,
                sandbox.at("pipe"),
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR,
                0,
            )
            .unwrap();
            let mut text = String::new();
            root.open_to_read(&path("file")).unwrap().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "text");
            assert!(root.open_to_read(&path("none")).unwrap().is_none());
            assert_eq!(outcome(&root.open_to_read(&path("link"))), "in the way: symbolic link");
            assert_eq!(outcome(&root.open_to_read(&path("pipe"))), "in the way: named pipe");
        }
    }
}
