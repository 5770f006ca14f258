//! A consistent copy of an SQLite database that is in use, made by SQLite itself.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// How long a database that is locked is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
/// Pages that are copied in one step.
const STEP_PAGES: i32 = 1024;
/// Room that a copy needs beside its bytes, and a part of them more: the database grows meanwhile.
const MARGIN_BYTES: u64 = 1 << 20;
const MARGIN_PART: u64 = 20;

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
    /// There is no room for the copy.
    #[error(
        "there is no room for a copy of the SQLite database {}: {needed} bytes are needed in {}, and {free} can be written there. Make \
         room, or name another place with --state-dir",
        path.display(),
        folder.display()
    )]
    NoRoom {
        /// The database.
        path: PathBuf,
        /// Where the copy is to be made.
        folder: PathBuf,
        /// Bytes of the database, with some more.
        needed: u64,
        /// Bytes that can be written.
        free: u64,
    },
    /// Somebody does not want it any more.
    #[error("the run was cancelled while the SQLite database {} was copied", path.display())]
    Cancelled {
        /// The database.
        path: PathBuf,
    },
}

/// What is asked while a database is copied.
pub struct Asking<'a> {
    /// How many bytes can be written to a folder's file system.
    pub free: &'a dyn Fn(&Path) -> io::Result<u64>,
    /// Whether to end.
    pub is_cancelled: &'a dyn Fn() -> bool,
}

/// How a database is copied.
struct How {
    patience: Duration,
    step_pages: i32,
}

/// Copies a database to `target`, which must not exist, all of it at one moment of its history.
///
/// # Errors
/// [`SqliteError`].
pub fn copy(path: &Path, target: &Path, asking: &Asking<'_>) -> Result<(), SqliteError> {
    copy_as(path, target, asking, &How { patience: PATIENCE, step_pages: STEP_PAGES })
}

/// Makes sure that there is room for a database of so many bytes, with what its log has to add.
fn find_room(path: &Path, target: &Path, len: u64, asking: &Asking<'_>) -> Result<(), SqliteError> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let len = len.saturating_add(fs::metadata(log).map_or(0, |log| log.len()));
    let needed = len.saturating_add(len / MARGIN_PART).saturating_add(MARGIN_BYTES);
    let folder = target.parent().unwrap_or(target);
    let free =
        (asking.free)(folder).map_err(|source| SqliteError::File { path: folder.to_owned(), source })?;
    match free < needed {
        true => Err(SqliteError::NoRoom { path: path.to_owned(), folder: folder.to_owned(), needed, free }),
        false => Ok(()),
    }
}

fn copy_as(path: &Path, target: &Path, asking: &Asking<'_>, how: &How) -> Result<(), SqliteError> {
    let of_file = |source| SqliteError::File { path: path.to_owned(), source };
    let of_sqlite = |source| SqliteError::Sqlite { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(of_file)?;
    if !meta.is_file() {
        return Err(of_file(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")));
    }
    find_room(path, target, meta.len(), asking)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(path, flags).map_err(of_sqlite)?;
    let mut copy = Connection::open(target).map_err(of_sqlite)?;
    // It is waited for here, where somebody may cancel it.
    source.busy_timeout(Duration::ZERO).map_err(of_sqlite)?;
    let until = Instant::now() + how.patience;
    let wait = || match Instant::now() < until {
        true => {
            thread::sleep(PAUSE);
            Ok(())
        }
        false => Err(SqliteError::Locked { path: path.to_owned() }),
    };
    let go_on = || match (asking.is_cancelled)() {
        true => Err(SqliteError::Cancelled { path: path.to_owned() }),
        false => Ok(()),
    };
    // All steps in one transaction: what somebody wrote between them would make it begin anew each time.
    source.execute_batch("BEGIN").map_err(of_sqlite)?;
    let begin = || source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    while let Err(error) = begin() {
        if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) {
            return Err(of_sqlite(error));
        }
        go_on()?;
        wait()?;
    }
    let backup = Backup::new(&source, &mut copy).map_err(of_sqlite)?;
    loop {
        go_on()?;
        match backup.step(how.step_pages).map_err(of_sqlite)? {
            StepResult::Done => break,
            StepResult::More => {}
            _ => wait()?,
        }
    }
    drop(backup);
    go_on()?;
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
    use std::cell::Cell;
    use std::sync::atomic::{AtomicBool, Ordering};

    const ASKING: Asking<'static> = Asking { free: &|_| Ok(u64::MAX), is_cancelled: &|| false };

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
                copy_as(&path, &target, &ASKING, &How { patience: PATIENCE, step_pages: 1 }).expect("a copy");
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
        assert!(matches!(copy(&missing, &target, &ASKING), Err(SqliteError::File { .. })));
        assert!(!missing.exists() && !target.exists());
        let text = folder.path().join("text");
        fs::write(&text, "not a database, but long enough to be one ".repeat(100)).expect("written");
        assert!(matches!(copy(&text, &target, &ASKING), Err(SqliteError::Sqlite { .. })));
        assert!(matches!(copy(folder.path(), &target, &ASKING), Err(SqliteError::File { .. })));
    }

    #[test]
    fn a_locked_database_is_waited_for_and_not_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bank.db");
        let bank = bank(&path);
        bank.execute_batch("PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE").expect("locked");
        let soon = How { patience: Duration::from_millis(200), step_pages: STEP_PAGES };
        let locked = copy_as(&path, &folder.path().join("copy"), &ASKING, &soon);
        assert!(matches!(locked, Err(SqliteError::Locked { .. })), "{locked:?}");
        bank.execute_batch("ROLLBACK").expect("unlocked");
        copy(&path, &folder.path().join("copy-2"), &ASKING).expect("a copy");
    }

    #[test]
    fn there_is_room_or_nothing_is_begun() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, target) = (folder.path().join("bank.db"), folder.path().join("copy"));
        drop(bank(&path));
        let len = fs::metadata(&path).expect("there").len();
        let needed = len + len / 20 + (1 << 20);
        let copy_into = |free: u64| {
            let asking = Asking { free: &|_| Ok(free), ..ASKING };
            copy(&path, &target, &asking)
        };
        let refused = copy_into(needed - 1).expect_err("no room");
        assert!(matches!(refused, SqliteError::NoRoom { needed: found, .. } if found == needed), "{refused}");
        assert!(!target.exists());
        copy_into(needed).expect("a copy");
        // What is in its log only comes on top.
        let bank = bank_with_log(&path);
        fs::remove_file(&target).expect("removed");
        assert!(matches!(copy_into(needed), Err(SqliteError::NoRoom { .. })));
        drop(bank);
    }

    /// Has written to it, and goes on to have it open: what it wrote is in its log.
    fn bank_with_log(path: &Path) -> Connection {
        let bank = Connection::open(path).expect("a database");
        bank.execute_batch("UPDATE account SET balance = balance + 1").expect("updated");
        bank
    }

    #[test]
    fn a_copy_that_nobody_wants_any_more_ends_between_two_steps() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bank.db");
        drop(bank(&path));
        let asked = Cell::new(0);
        let is_cancelled = || {
            asked.set(asked.get() + 1);
            asked.get() > 3
        };
        let asking = Asking { is_cancelled: &is_cancelled, ..ASKING };
        let how = How { patience: PATIENCE, step_pages: 1 };
        let ended = copy_as(&path, &folder.path().join("copy"), &asking, &how);
        assert!(matches!(ended, Err(SqliteError::Cancelled { .. })), "{ended:?}");
        assert_eq!(asked.get(), 4);
    }
    /// Somebody writes before each step: a copy that began anew for that would never come to its end.
    #[test]
    fn a_copy_does_not_begin_anew_for_what_is_written_meanwhile() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, target) = (folder.path().join("bank.db"), folder.path().join("copy"));
        let bank = bank(&path);
        let asked = Cell::new(0);
        let write = || {
            bank.execute_batch("UPDATE account SET balance = balance + 1").expect("updated");
            asked.set(asked.get() + 1);
            asked.get() > 500
        };
        let asking = Asking { is_cancelled: &write, ..ASKING };
        copy_as(&path, &target, &asking, &How { patience: PATIENCE, step_pages: 1 }).expect("a copy");
        assert!(asked.get() > 5, "there was more than one step");
        let copied = Connection::open(&target).expect("a database");
        let sum = copied.query_row("SELECT sum(balance) FROM account", [], |row| row.get(0));
        assert_eq!(sum, Ok(200_000), "as it was when the copy began");
    }
}
