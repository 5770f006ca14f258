//! What a command works with: options, output, and the repository behind them.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Uid, User};
use strongroom::backend::{Backend, BackendError, LocalBackend};
use strongroom::budget;
use strongroom::crypto::{Password, SystemEntropy};
use strongroom::log::Head;
use strongroom::repo::{Environment, Repository, RepositoryError, Unread};
use strongroom::source::Spill;

use strongroom_ops::plan::Plan;
use strongroom_ops::plan::types::Repo;

use crate::args::Global;
use crate::failure::{self, Failure, Origin, absent};
use crate::heads::{self, Heads};
use crate::location::Location;
use crate::output::Output;
use crate::{evidence, password, plan, units};

/// Options and output of a run.
#[derive(Debug)]
pub struct Context {
    /// Options that every command takes.
    pub global: Global,
    /// Where results go.
    pub output: Output,
    /// The repository the command works on, once it is open.
    opened: OnceCell<Arc<Repository>>,
}

/// Name and version as they are recorded.
pub const PROGRAM: &str = concat!("strongroom ", env!("CARGO_PKG_VERSION"));

impl Context {
    /// Nothing is open yet.
    pub fn new(global: Global, output: Output) -> Self {
        Self { global, output, opened: OnceCell::new() }
    }

    /// Where the repository is.
    pub fn location(&self) -> Result<Location, Failure> {
        let missing = || {
            Failure::usage("usage", "no repository was named")
                .hint("give -r REPO or set STRONGROOM_REPOSITORY")
        };
        Location::parse(self.global.repo.as_deref().ok_or_else(missing)?)
    }

    /// The storage of an existing repository.
    fn backend(&self) -> Result<Arc<dyn Backend>, Failure> {
        Self::backend_at(self.location()?)
    }

    fn backend_at(location: Location) -> Result<Arc<dyn Backend>, Failure> {
        let Location::Local(path) = location;
        let backend = LocalBackend::open(&path).map_err(|error| match &error {
            BackendError::Io { source, .. }
                if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                absent(format!("there is no repository at {}: {source}", path.display()))
            }
            _ => error.into(),
        })?;
        // Before anybody is asked for a password.
        Repository::find(&backend)?;
        Ok(Arc::new(backend))
    }

    /// Opens the repository, whose log has to pass through what was seen of it before, to read and change it.
    pub fn open(&self) -> Result<Arc<Repository>, Failure> {
        self.known(full(self.open_unknown()?)?)
    }

    /// The same for who lists snapshots or takes one of them: who looks at none needs to read no record.
    pub fn open_for_snapshots(&self) -> Result<Arc<Repository>, Failure> {
        let repository = self.open()?;
        self.tell_unread(&repository.readable_snapshots().1);
        Ok(repository)
    }

    /// The same as [`Context::open`] for what an append-only password is good for as well.
    pub fn open_to_add(&self) -> Result<Arc<Repository>, Failure> {
        self.known(self.open_unknown()?)
    }

    /// The same for who shows the log, and in it the entries that do not count.
    pub fn open_for_log(&self) -> Result<Arc<Repository>, Failure> {
        let repository = self.open_untold(Repository::open)?;
        // None is shown of a log that is not what was seen before.
        self.compare_head(&repository).inspect_err(|_| self.tell_void(&repository))?;
        Ok(self.work_on(repository))
    }

    /// Opens the repository, of whose index any part may be lost.
    pub fn open_for_repair(&self) -> Result<Arc<Repository>, Failure> {
        self.known(full(self.open_as(Repository::open_for_repair)?)?)
    }

    /// Opens the repository for a check, which says itself what is wrong with index and log, and whatever was seen before:
    /// then also why it is not what it was.
    pub fn open_for_check(&self) -> Result<(Arc<Repository>, Option<Failure>), Failure> {
        let repository = full(self.open_as(Repository::open_for_check)?)?;
        match self.compare_head(&repository) {
            Ok(()) => Ok((self.work_on(repository), None)),
            Err(failure) => Ok((Arc::new(repository), Some(failure))),
        }
    }

    /// Opens the repository whatever was seen of it before.
    pub fn open_unknown(&self) -> Result<Repository, Failure> {
        self.open_as(Repository::open)
    }

    /// Opens the repository whatever was seen of it before. Segments may be lost: an entry that does not count may have
    /// been the one that replaced them.
    pub fn open_for_log_repair(&self) -> Result<Repository, Failure> {
        full(self.open_as(Repository::open_for_repair)?)
    }

    /// Opens a repository of a plan, whose log has to pass through what was seen of it before.
    pub fn open_planned(&self, plan: &Plan, repo: &Repo) -> Result<Repository, Failure> {
        let backend = Self::backend_at(Location::parse(OsStr::new(&repo.url))?)?;
        let password = self.limited(password::planned(plan, repo, &self.global)?);
        let repository = Repository::open(backend, &password, environment())?;
        repository.live_in(self.memory(budget::USUAL));
        for void in repository.void_entries() {
            self.output.warn(&format!("warning: {}: {void}", repo.url));
        }
        self.tell_lost(&repository);
        self.tell_distrusted(&repository);
        self.compare_head(&repository)?;
        Ok(repository)
    }

    fn open_as(
        &self,
        open: impl FnOnce(Arc<dyn Backend>, &Password, Environment) -> Result<Repository, RepositoryError>,
    ) -> Result<Repository, Failure> {
        let repository = self.open_untold(open)?;
        self.tell_void(&repository);
        Ok(repository)
    }

    /// Opens the repository without a word of log entries that do not count.
    fn open_untold(
        &self,
        open: impl FnOnce(Arc<dyn Backend>, &Password, Environment) -> Result<Repository, RepositoryError>,
    ) -> Result<Repository, Failure> {
        let backend = self.backend()?;
        let password = self.limited(password::existing(&self.global)?);
        let repository = match self.global.ignore_log_damage {
            true => Repository::open_ignoring_damage(backend, &password, environment())?,
            false => open(backend, &password, environment())?,
        };
        repository.live_in(self.memory(budget::USUAL));
        self.tell_lost(&repository);
        self.tell_distrusted(&repository);
        Ok(repository)
    }

    /// Tells of log entries that do not count.
    pub fn tell_void(&self, repository: &Repository) {
        for void in repository.void_entries() {
            self.output.warn(&format!("warning: {void}"));
        }
    }

    /// Tells of commits that are lost, also where it is to be quiet: something may be missing from whatever comes next.
    fn tell_lost(&self, repository: &Repository) {
        for lost in repository.lost_commits() {
            self.output.alert(&format!("warning: {lost}; {}", failure::after_loss(&lost)));
        }
    }

    /// Tells of snapshots whose records cannot be read: everything goes on without them.
    pub fn tell_unread(&self, unread: &Unread) {
        for (_, error) in unread {
            self.output.alert(&format!("warning: {error}; everything else goes on without it"));
        }
    }

    /// Tells what appenders added to the index that cannot be used.
    fn tell_distrusted(&self, repository: &Repository) {
        for problem in repository.distrusted_segments() {
            let what = "an append-only password added a part of the index that is not used";
            self.output.alert(&format!("warning: {what}: {problem}"));
        }
    }

    /// Goes on with a repository whose log is what was seen before.
    fn known(&self, repository: Repository) -> Result<Arc<Repository>, Failure> {
        self.compare_head(&repository)?;
        Ok(self.work_on(repository))
    }

    /// Compares the repository's log with the head that was given, and with the one that is remembered.
    fn compare_head(&self, repository: &Repository) -> Result<(), Failure> {
        if let Some(expected) = &self.global.expect_head {
            repository
                .verify_head(expected)
                .map_err(|error| failure::unexpected_head(error, Origin::Given))?;
        }
        self.compare_with_remembered(repository)
    }

    fn compare_with_remembered(&self, repository: &Repository) -> Result<(), Failure> {
        // Of a damaged log as much is read as can be, whatever it was.
        if let Some(heads) = self.heads().filter(|_| !repository.is_salvaged()) {
            match heads.remembered(&repository.id()) {
                Ok(Some(seen)) => repository
                    .verify_head(&seen)
                    .map_err(|error| failure::unexpected_head(error, Origin::Remembered))?,
                Ok(None) => {}
                Err(error) => self.forgetful("read", &error),
            }
        }
        Ok(())
    }

    /// Takes note of the repository that the command works on: where its log ends will be remembered.
    pub fn work_on(&self, repository: Repository) -> Arc<Repository> {
        // A command works on one repository.
        Arc::clone(self.opened.get_or_init(|| Arc::new(repository)))
    }

    /// Compares the log as it is stored now, after a repair, with the head that was given and with the one that is remembered.
    pub fn compare_head_anew(&self, repository: &Repository) -> Result<(), Failure> {
        let remembered = self.heads().and_then(|heads| heads.remembered(&repository.id()).ok().flatten());
        let verify = |head: Option<&Head>, origin| {
            repository.verify_log_anew(head).map_err(|error| failure::unexpected_head(error, origin))
        };
        if let Some(given) = &self.global.expect_head {
            verify(Some(given), Origin::Given)?;
        }
        verify(remembered.as_ref(), Origin::Remembered)
    }

    /// Tells of parity that could not be stored or deleted: no command fails for that.
    pub fn tell_parity_troubles(&self) {
        if let Some(repository) = self.opened.get() {
            self.tell_parity_troubles_of(repository);
        }
    }

    /// The same of one repository.
    pub fn tell_parity_troubles_of(&self, repository: &Repository) {
        for trouble in repository.parity_troubles() {
            self.output.warn(&format!("warning: {trouble}; `strongroom parity add` makes it good"));
        }
    }

    /// Remembers where the log ends of the repository that the command has worked on.
    pub fn remember_head(&self) {
        if let Some(repository) = self.opened.get() {
            self.remember_head_of(repository);
        }
    }

    /// Remembers where the log of a repository ends.
    pub fn remember_head_of(&self, repository: &Repository) {
        let Some(heads) = self.heads().filter(|_| !repository.is_salvaged()) else { return };
        let known = heads.remembered(&repository.id()).ok().flatten();
        if repository.head().is_none_or(|head| known.is_some_and(|known| known.seq >= head.seq)) {
            return;
        }
        match repository.durable_head() {
            Ok(Some(head)) => {
                if let Err(error) = heads.remember(&repository.id(), &head) {
                    self.forgetful("write", &error);
                }
            }
            Ok(None) => {}
            Err(error) => {
                self.output
                    .warn(&format!("warning: what was seen of the repository is not remembered: {error}"));
            }
        }
    }

    /// Remembers where the log ends, although it was seen to end elsewhere.
    pub fn accept_head(&self) -> Result<(), Failure> {
        if let Some(repository) = self.opened.get()
            && let Some(heads) = self.heads()
            && let Some(head) = repository.head()
        {
            let failed = |error| Failure::io("cannot write to the state directory", &error);
            heads.accept(&repository.id(), &head).map_err(failed)?;
        }
        Ok(())
    }

    /// What this client remembers, unless it is not to.
    pub fn heads(&self) -> Option<Heads> {
        self.state_dir().map(|state_dir| Heads::new(&state_dir))
    }

    /// Where this client remembers things, unless it is not to.
    pub fn state_dir(&self) -> Option<PathBuf> {
        if self.global.no_state {
            return None;
        }
        let chosen = self.global.state_dir.clone();
        chosen.or_else(heads::default_state_dir)
    }

    /// The folders in it that commands write to: the directory itself may be one that others use, too.
    pub fn state_folders(&self) -> Vec<PathBuf> {
        let folders = [heads::FOLDER, plan::FOLDER, plan::SERIES, evidence::FOLDER];
        self.state_dir().map_or(Vec::new(), |state| folders.map(|folder| state.join(folder)).into())
    }

    /// No command fails for what its client cannot remember.
    fn forgetful(&self, verb: &str, error: &io::Error) {
        let what = "in the state directory what was seen of the repository";
        self.output.warn(&format!("warning: cannot {verb} {what}: {error}"));
    }

    /// Opens another repository, as far as it can be read: with the password in `password_file`, else with this one's.
    pub fn open_other(&self, location: &OsStr, password_file: Option<&Path>) -> Result<Repository, Failure> {
        let backend = Self::backend_at(Location::parse(location)?)?;
        let password = match password_file {
            Some(file) => password::new(Some(file))?,
            None => password::existing(&self.global)?,
        };
        let repository = full(Repository::open_for_repair(backend, &self.limited(password), environment())?)?;
        repository.live_in(self.memory(budget::USUAL));
        Ok(repository)
    }

    /// Opens another repository to write to, whose log has to pass through what was seen of it before.
    pub fn open_target(
        &self,
        location: &OsStr,
        password_file: Option<&Path>,
        password_command: Option<&OsString>,
    ) -> Result<Repository, Failure> {
        let location = Location::parse(location)?;
        let Location::Local(path) = &location;
        let place = path.display().to_string();
        let backend = Self::backend_at(location)?;
        let password = self.limited(password::second(password_file, password_command, &self.global)?);
        let repository = Repository::open(backend, &password, environment())?;
        for void in repository.void_entries() {
            self.output.warn(&format!("warning: {place}: {void}"));
        }
        self.tell_lost(&repository);
        self.tell_unread(&repository.readable_snapshots().1);
        self.compare_with_remembered(&repository)?;
        Ok(repository)
    }

    /// Threads that do the work.
    pub fn threads(&self, default: usize) -> usize {
        self.global.threads.unwrap_or(default)
    }

    /// A password that is not tried where that takes more than the memory that was given. Without `--memory` it takes what its
    /// keyslot says: that was chosen when it was made.
    pub fn limited(&self, password: Password) -> Password {
        match self.global.memory {
            Some(memory) => password.within(budget::password(memory)),
            None => password,
        }
    }

    /// Memory to live in.
    pub fn memory(&self, default: u64) -> u64 {
        self.global.memory.unwrap_or(default)
    }
}

/// The repository, if the password opens everything in it.
fn full(repository: Repository) -> Result<Repository, Failure> {
    repository.require_full("read, change or take away what is stored")?;
    Ok(repository)
}

/// This host, this user, the system's clock and random numbers.
pub fn environment() -> Environment {
    Environment {
        entropy: Arc::new(SystemEntropy),
        now: Arc::new(units::now),
        uptime: Arc::new(uptime),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        user: user(),
        program: PROGRAM.into(),
    }
}

/// Time since the system was started. It goes on while the system sleeps, as does what others think of this process's silence.
fn uptime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// Where large temporary files go: `TMPDIR`, or the place that is on a disk on most systems.
pub fn temporary_place() -> PathBuf {
    std::env::var_os("TMPDIR")
        .filter(|place| !place.is_empty())
        .map_or_else(|| "/var/tmp".into(), PathBuf::from)
}

/// Where the names in a huge directory go while they are gone through.
pub fn spill() -> Spill {
    Spill { place: Some(temporary_place()), ..Spill::default() }
}

/// The user's name as the system knows it, else as the environment says, else the number.
fn user() -> String {
    let uid = Uid::effective();
    let known = User::from_uid(uid).ok().flatten().map(|user| user.name);
    known.or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| uid.to_string())
}
