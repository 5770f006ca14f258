//! Files that are written to while they are read.

use std::fs::File;
use std::io::Write;

use super::*;

/// Writes to a file whenever it is asked whether the backup is to end, and so in the middle of reading it.
struct Writer {
    file: File,
    appends: bool,
    count: AtomicU64,
}

impl Monitor for Writer {
    fn is_cancelled(&self) -> bool {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        match self.appends {
            true => (&self.file).write_all(b"a line\n").unwrap(),
            false => self.file.write_all_at(&count.to_le_bytes(), 0).unwrap(),
        }
        false
    }
}

#[test]
fn of_a_file_that_only_grows_the_beginning_is_stored_and_of_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let before = noise(1, 3 << 20);
    for (growing, appends, unstable) in
        [(false, true, 1), (true, true, 0), (true, false, 1), (false, false, 1)]
    {
        fs::write(&path, &before).unwrap();
        let file = File::options().write(!appends).append(appends).open(&path).unwrap();
        let writer = Writer { file, appends, count: AtomicU64::new(0) };
        let repository = repository();
        let options = BackupOptions { growing, ..options() };
        let report = run(&repository, paths(folder.path()), &options, &writer).unwrap();
        assert_eq!(report.summary.unstable, unstable, "growing: {growing}, appends: {appends}");
        let now = fs::read(&path).unwrap();
        if unstable == 0 {
            let entries = entries(&repository, report.snapshot.unwrap(), folder.path());
            let stored = content(&repository, &entries["log"]);
            assert!(now.len() > stored.len() && now.starts_with(&stored) && stored.starts_with(&before));
        }
        // What has come since then is the next one's.
        let next = run(&repository, paths(folder.path()), &options, &Silent).unwrap();
        assert_eq!((next.summary.unstable, next.summary.files_unmodified), (0, 0));
        let entries = entries(&repository, next.snapshot.unwrap(), folder.path());
        assert!(content(&repository, &entries["log"]) == now);
    }
}
