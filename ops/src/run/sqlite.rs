//! A consistent copy of an SQLite database that is in use, made by SQLite itself.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

/// How long a database that is locked is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// A database could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// The file is not there: SQLite would make an empty one.
    #[error("the SQLite database {} cannot be read: {source}", path.display())]
    File {
        /// The database.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// SQLite failed.
    #[error("the SQLite database {} cannot be copied: {source}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// Somebody holds a lock on it.
    #[error("the SQLite database {} was locked for {} s", path.display(), PATIENCE.as_secs())]
    Locked {
        /// The database.
        path: PathBuf,
    },
    /// The copy is damaged, so the original is.
    #[error("the SQLite database {} is damaged: {reason}", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite found first.
        reason: String,
    },
}

/// Copies a database to `target`, which must not exist, all of it at one moment of its history.
///
/// # Errors
/// [`SqliteError`].
pub fn copy(path: &Path, target: &Path) -> Result<(), SqliteError> {
    copy_within(path, target, PATIENCE)
}

fn copy_within(path: &Path, target: &Path, patience: Duration) -> Result<(), SqliteError> {
    let of_file = |source| SqliteError::File { path: path.to_owned(), source };
    let of_sqlite = |source| SqliteError::Sqlite { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(of_file)?;
    if !meta.is_file() {
        return Err(of_file(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(path, flags).map_err(of_sqlite)?;
    let mut copy = Connection::open(target).map_err(of_sqlite)?;
    let until = Instant::now() + patience;
    let backup = Backup::new(&source, &mut copy).map_err(of_sqlite)?;
    loop {
        // In one step: in several, a writer would make it begin anew each time.
        match backup.step(-1).map_err(of_sqlite)? {
            StepResult::Done => break,
            _ if Instant::now() < until => thread::sleep(PAUSE),
            _ => return Err(SqliteError::Locked { path: path.to_owned() }),
        }
    }
    drop(backup);
    let verdict: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(of_sqlite)?;
    if verdict != "ok" {
        return Err(SqliteError::Damaged { path: path.to_owned(), reason: verdict });
    }
    copy.close().map_err(|(_, source)| of_sqlite(source))?;
    fs::set_permissions(target, meta.permissions()).map_err(of_file)?;
    // Who may not give files away is nobody that could restore owners either.
    let _ = chown(target, Some(meta.uid()), Some(meta.gid()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Money that is moved around, never made or lost.
    fn bank(path: &Path) -> Connection {
        let bank = Connection::open(path).expect("a database");
        bank.execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             INSERT INTO account SELECT i, 100 FROM n;",
        )
        .expect("tables");
        bank
    }

    #[test]
    fn a_copy_under_load_is_of_one_moment() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bank.db");
        let mut bank = bank(&path);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut moved = 0;
                while !stop.load(Ordering::Relaxed) {
                    let transaction = bank.transaction().expect("begun");
                    let (from, to) = (moved % 2000 + 1, (moved * 7) % 2000 + 1);
                    for (id, amount) in [(from, -10), (to, 10)] {
                        transaction
                            .execute("UPDATE account SET balance = balance + ?1 WHERE id = ?2", [amount, id])
                            .expect("updated");
                    }
                    transaction.commit().expect("committed");
                    moved += 1;
                }
                moved
            });
            for number in 0..5 {
                let target = folder.path().join(format!("copy-{number}"));
                copy(&path, &target).expect("a copy");
                let copied = Connection::open(&target).expect("a database");
                let sum: i64 = copied
                    .query_row("SELECT sum(balance) FROM account", [], |row| row.get(0))
                    .expect("a sum");
                assert_eq!(sum, 200_000);
            }
            stop.store(true, Ordering::Relaxed);
            assert!(writer.join().expect("no panic") > 0, "the load was there");
        });
    }

    #[test]
    fn what_is_no_database_is_an_error_and_nothing_is_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let (missing, target) = (folder.path().join("missing.db"), folder.path().join("copy"));
        assert!(matches!(copy(&missing, &target), Err(SqliteError::File { .. })));
        assert!(!missing.exists() && !target.exists());
        let text = folder.path().join("text");
        fs::write(&text, "not a database, but long enough to be one ".repeat(100)).expect("written");
        assert!(matches!(copy(&text, &target), Err(SqliteError::Sqlite { .. })));
        assert!(matches!(copy(folder.path(), &target), Err(SqliteError::File { .. })));
    }

    #[test]
    fn a_locked_database_is_waited_for_and_not_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bank.db");
        let bank = bank(&path);
        bank.execute_batch("PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE").expect("locked");
        let locked = copy_within(&path, &folder.path().join("copy"), Duration::from_millis(200));
        assert!(matches!(locked, Err(SqliteError::Locked { .. })), "{locked:?}");
        bank.execute_batch("ROLLBACK").expect("unlocked");
        copy(&path, &folder.path().join("copy-2")).expect("a copy");
    }
}
