//! Whether a drill notices a damaged byte: one that does not proves nothing.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::drill::machine::{Driller, Stop, Work, verdict};
use crate::drill::record::{Phase, Restoration};

impl Driller<'_> {
    /// Restores the first domain, damages a byte of it, and fails where that is noticed. Whatever else is wrong proves nothing.
    pub(super) fn self_test(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let not_yet = |stop| unproved("the self-test has damaged nothing yet: ", stop);
        let nothing = |reason: String| Stop::Unverified(format!("nothing to damage: {reason}"));
        self.timed(work, Phase::Locate, Self::locate).map_err(not_yet)?;
        let first = work.restored.first().cloned();
        let Restoration { domain, snapshot, .. } = first.ok_or_else(|| nothing("it has no domain".into()))?;
        let folder = work.folder(&domain);
        let part = self
            .timed(work, Phase::Fetch, |driller, work| driller.fetch(work, &domain, &snapshot, &folder))
            .map_err(not_yet)?;
        let part = part.ok_or_else(|| nothing("a drill of metadata has no data".into()))?;
        let compare = |driller: &Self, work: &mut Work<'_>| {
            driller.source.compare(work.repo, &snapshot, &part, &folder).map_err(Stop::from)
        };
        let before = self.timed(work, Phase::Verify, compare);
        before.and_then(|compared| verdict(compared, &domain)).map_err(not_yet)?;
        flip(&folder).map_err(|error| nothing(error.to_string()))?;
        let after = self.timed(work, Phase::Verify, compare).map_err(|stop| unproved("", stop))?;
        verdict(after, &domain)?;
        let blind = "the self-test: a damaged byte was not noticed, so no drill proves anything";
        Err(Stop::Unverified(blind.into()))
    }
}

fn unproved(when: &str, stop: Stop) -> Stop {
    match stop {
        Stop::Fail(reason) => Stop::Unverified(format!("{when}{reason}")),
        stop => stop,
    }
}

/// Flips a bit in the largest file below a directory.
fn flip(folder: &Path) -> io::Result<()> {
    let mut open = vec![folder.to_owned()];
    let mut largest: Option<(u64, PathBuf)> = None;
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                let len = entry.metadata()?.len();
                if len > largest.as_ref().map_or(0, |(most, _)| *most) {
                    largest = Some((len, entry.path()));
                }
            }
        }
    }
    let empty = || io::Error::new(ErrorKind::NotFound, "no file with any content was restored");
    let (len, path) = largest.ok_or_else(empty)?;
    // It may have been restored as one that cannot be written to.
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    let file = File::options().read(true).write(true).open(path)?;
    let (mut byte, at) = ([0], len / 2);
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1], at)
}
