//! What this client remembers of repositories: the last entry of each one's commit log, so that an older log is noticed.
//!
//! In the state directory, `heads/<repository id>` is a folder with an empty file per head, which is called `<seq, 20
//! digits>-<hash>`. The last one counts. A name comes into being whole or not at all, so nothing can be half written; whoever
//! notes a head removes only earlier ones, so it never goes back, whoever else writes at the same time.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use strongroom::ids::RepositoryId;
use strongroom::log::Head;

/// The folder in the state directory.
pub const FOLDER: &str = "heads";
/// How often a folder is listed in which nothing is found: a list that is made while others put one head in the place of
/// another may show neither.
const LISTINGS: u32 = 3;

/// The memory of one client.
#[derive(Debug)]
pub struct Heads {
    folder: PathBuf,
}

/// The state directory of this user, as the XDG base directory specification has it; none where there is no home.
pub fn default_state_dir() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home =
        || absolute("HOME").or_else(|| User::from_uid(Uid::effective()).ok().flatten().map(|user| user.dir));
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(home()?.join(".local/state")))?;
    Some(state.join("strongroom"))
}

impl Heads {
    /// In this state directory, which need not exist.
    pub fn new(state_dir: &Path) -> Self {
        Self { folder: state_dir.join(FOLDER) }
    }

    /// What is remembered of the repository.
    ///
    /// # Errors
    /// Where the folder is there and cannot be read.
    pub fn remembered(&self, repository: &RepositoryId) -> io::Result<Option<Head>> {
        for _ in 0..LISTINGS {
            let heads = self.all(repository)?;
            if let Some((head, _)) = heads.into_iter().max_by_key(|(head, _)| head.seq) {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    /// Remembers a head, unless a later one is remembered.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn remember(&self, repository: &RepositoryId, head: &Head) -> io::Result<()> {
        let known = self.all(repository)?;
        if known.iter().any(|(known, _)| known.seq >= head.seq) {
            return Ok(());
        }
        self.write(repository, head)?;
        known.into_iter().try_for_each(|(_, path)| remove(&path))
    }

    /// Remembers a head instead of any other, also of a later one.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn accept(&self, repository: &RepositoryId, head: &Head) -> io::Result<()> {
        for (known, path) in self.all(repository)? {
            if known != *head {
                remove(&path)?;
            }
        }
        self.write(repository, head)
    }

    fn of(&self, repository: &RepositoryId) -> PathBuf {
        self.folder.join(repository.to_string())
    }

    fn write(&self, repository: &RepositoryId, head: &Head) -> io::Result<()> {
        let folder = self.of(repository);
        fs::create_dir_all(&folder)?;
        File::create(folder.join(format!("{:020}-{}", head.seq, head.hash)))?;
        // The name is all there is to it.
        File::open(&folder)?.sync_all()
    }

    /// All heads of a repository that are noted, each with its file.
    fn all(&self, repository: &RepositoryId) -> io::Result<Vec<(Head, PathBuf)>> {
        let entries = match fs::read_dir(self.of(repository)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut heads = Vec::new();
        for entry in entries {
            let entry = entry?;
            heads.extend(parse(&entry.file_name()).map(|head| (head, entry.path())));
        }
        Ok(heads)
    }
}

fn parse(name: &OsStr) -> Option<Head> {
    let (seq, hash) = name.to_str()?.split_once('-')?;
    Some(Head { seq: seq.parse().ok()?, hash: hash.parse().ok()? })
}

/// Removes a file that another process may have removed already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strongroom::ids::CommitHash;

    fn head(seq: u64) -> Head {
        Head { seq, hash: CommitHash::from_bytes([seq as u8; 32]) }
    }

    #[test]
    fn memory_never_goes_back_by_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let heads = Heads::new(&folder.path().join("not/there/yet"));
        let id = RepositoryId::from_bytes([7; 16]);
        assert_eq!(heads.remembered(&id).expect("nothing yet"), None);
        for (noted, expected) in [(3, 3), (5, 5), (4, 5), (5, 5)] {
            heads.remember(&id, &head(noted)).expect("noted");
            assert_eq!(heads.remembered(&id).expect("readable"), Some(head(expected)));
        }
        assert_eq!(heads.remembered(&RepositoryId::from_bytes([8; 16])).expect("another"), None);
        heads.accept(&id, &head(2)).expect("noted");
        assert_eq!(heads.remembered(&id).expect("readable"), Some(head(2)));
        let count = || fs::read_dir(heads.of(&id)).expect("a folder").count();
        assert_eq!(count(), 1, "earlier ones are removed");
        fs::write(heads.of(&id).join("other"), "").expect("written");
        assert_eq!(heads.remembered(&id).expect("passed over"), Some(head(2)));
    }

    #[test]
    fn the_last_of_many_at_once_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let (heads, id) = (Heads::new(folder.path()), RepositoryId::from_bytes([7; 16]));
        std::thread::scope(|scope| {
            for first in 1..=4 {
                let (heads, id) = (&heads, &id);
                scope.spawn(move || {
                    for seq in (first..=100).step_by(4) {
                        heads.remember(id, &head(seq)).expect("noted");
                        let now = heads.remembered(id).expect("readable").expect("something");
                        assert!(now.seq >= seq && now == head(now.seq), "{now} after {seq}");
                    }
                });
            }
        });
        assert_eq!(heads.remembered(&id).expect("readable"), Some(head(100)));
    }
}
