//! Files that are written to while they are read.

use std::fs::File;
use std::io::Write;

use super::*;

/// Writes to a file whenever it is asked whether the backup is to end, and so in the middle of reading it.
struct Writer {
    file: File,
    appends: bool,
    count: AtomicU64,
    problems: Collect,
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

    fn problem(&self, problem: &Problem) {
        self.problems.problem(problem);
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
        let writer = Writer { file, appends, count: AtomicU64::new(0), problems: Collect::default() };
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

/// Writes something else over a file, once: at the call with this number.
struct Overwriter {
    file: File,
    content: Vec<u8>,
    at: u64,
    count: AtomicU64,
    problems: Collect,
}

impl Monitor for Overwriter {
    fn is_cancelled(&self) -> bool {
        if self.count.fetch_add(1, Ordering::Relaxed) == self.at {
            self.file.write_all_at(&self.content, 0).unwrap();
        }
        false
    }

    fn problem(&self, problem: &Problem) {
        self.problems.problem(problem);
    }
}

/// A file of which the first half is of one state and the rest of another is none that anybody ever had.
#[test]
fn a_file_that_is_written_over_once_is_of_one_state_whenever_that_happens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    let (before, after) = (noise(1, 3 << 20), noise(2, 3 << 20));
    let mut seen = (0, 0);
    for at in 0..40 {
        fs::write(&path, &before).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        // Times are coarse: what was just made and what was just changed may have the same.
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let problems = Collect::default();
        let writer = Overwriter { file, content: after.clone(), at, count: AtomicU64::new(0), problems };
        let repository = repository();
        let report = run(&repository, paths(folder.path()), &options(), &writer).unwrap();
        assert_eq!(report.summary.unstable, 0, "at {at}: it is read again");
        let entries = entries(&repository, report.snapshot.unwrap(), folder.path());
        let stored = content(&repository, &entries["table"]);
        match (stored == before, stored == after) {
            (true, _) => seen.0 += 1,
            (_, true) => seen.1 += 1,
            _ => panic!("at {at}: a mixture of both was stored"),
        }
    }
    assert!(seen.0 > 0 && seen.1 > 0, "{seen:?}");
}

#[test]
fn a_file_that_is_written_over_all_the_time_is_marked_and_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    fs::write(&path, noise(1, 3 << 20)).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let writer = Writer { file, appends: false, count: AtomicU64::new(0), problems: Collect::default() };
    let repository = repository();
    let report = run(&repository, paths(folder.path()), &options(), &writer).unwrap();
    assert_eq!((report.summary.unstable, report.is_complete()), (1, false));
    let entries = entries(&repository, report.snapshot.unwrap(), folder.path());
    let NodeKind::File(content) = &entries["table"].kind else { panic!("a file") };
    assert!(content.unstable, "whoever restores it can see it");
    let problems = writer.problems.0.lock().unwrap();
    let told: Vec<_> = problems.iter().map(|problem| (problem.code, problem.path.clone())).collect();
    assert_eq!(told, [("unstable", Some(path.into_os_string().into_encoded_bytes()))]);
}
