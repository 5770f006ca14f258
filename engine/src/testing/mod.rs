//! Helpers for tests: repositories in memory that are cheap to make and say the same every time.

pub mod fuzz;

use std::fmt::Display;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Backend;
use crate::crypto::{KdfParams, Password, SeededEntropy};
use crate::forget::policy::{Calendar, CivilTime, Span};
use crate::format::tree::Timestamp;
use crate::repo::{Environment, InitOptions, Repository};

/// The password of test repositories.
pub const PASSWORD: &[u8] = b"test";

/// The cheapest key derivation that is accepted.
pub const CHEAP: KdfParams = KdfParams { memory_kib: KdfParams::MEMORY_KIB_MIN, passes: 2, lanes: 1 };

/// Says loudly that a test cannot be made here; the harness would hide what the print macros say.
pub fn cannot(what: &str, reason: &dyn Display) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: cannot {what}: {reason}");
}

/// For what names snapshots by their ids: nothing of it goes by time.
#[derive(Debug)]
pub struct NoCalendar;

impl Calendar for NoCalendar {
    fn civil(&self, _: Timestamp) -> CivilTime {
        unreachable!("ids need no calendar")
    }

    fn before(&self, _: Timestamp, _: &Span) -> Timestamp {
        unreachable!("ids need no calendar")
    }
}

/// An environment in which everything follows from `seed`; its clock ticks once for each question.
pub fn environment(seed: u64) -> Environment {
    let clock = std::sync::atomic::AtomicI64::new(1_700_000_000);
    Environment {
        entropy: Arc::new(SeededEntropy::new(seed)),
        now: Arc::new(move || Timestamp {
            seconds: clock.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            nanos: 0,
        }),
        uptime: Arc::new(|| Duration::ZERO),
        host: "testhost".into(),
        user: "tester".into(),
        program: "strongroom-test".into(),
    }
}

/// Makes a repository on an empty backend.
///
/// # Panics
/// Where it cannot be made.
pub fn init(backend: Arc<dyn Backend>, seed: u64) -> Repository {
    let options = InitOptions { kdf: CHEAP, label: "test".into(), parity: None, reserve: None };
    Repository::init(backend, &Password::new(PASSWORD.to_vec()), &options, environment(seed))
        .expect("a repository can be made on an empty backend")
}

/// Opens a test repository anew.
///
/// # Errors
/// Those of [`Repository::open`].
pub fn open(backend: Arc<dyn Backend>, seed: u64) -> Result<Repository, crate::repo::RepositoryError> {
    Repository::open(backend, &Password::new(PASSWORD.to_vec()), environment(seed))
}
