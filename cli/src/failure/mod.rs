//! Why a command failed: an exit code, a stable name for programs, a message, and what to do next.

mod engine;

pub use engine::{Origin, absent, after_loss, refused_group, unexpected_head};

use std::ffi::OsStr;

use crate::exit::Exit;
use crate::output::Object;

/// The end of a command that did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// A stable name for programs.
    pub code: &'static str,
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// What programs are told besides; seldom anything.
    pub details: Option<Box<Object>>,
}

/// What a command ends with.
pub type Outcome = Result<Exit, Failure>;

// Messages come by value, so that callers can hand on what they have just made.
#[expect(clippy::needless_pass_by_value, reason = "see above")]
impl Failure {
    /// A failure with exit code 1.
    pub fn new(code: &'static str, message: impl ToString) -> Self {
        Self { exit: Exit::Failed, code, message: message.to_string(), hint: None, details: None }
    }

    /// A command line that cannot be used.
    pub fn usage(code: &'static str, message: impl ToString) -> Self {
        Self::new(code, message).exit(Exit::Usage)
    }

    /// Damage of the repository.
    pub fn damage(code: &'static str, message: impl ToString) -> Self {
        let hint = "`strongroom check` names everything that is damaged and the files it hits";
        Self::new(code, message).exit(Exit::Damage).hint(hint)
    }

    /// Cannot read or write a file or stream of the caller's.
    pub fn io(what: impl std::fmt::Display, error: &std::io::Error) -> Self {
        Self::new("io", format!("{what}: {error}"))
    }

    /// The same with another exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The same with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl ToString) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// The same, said of a second repository, which the `option` names; its password is that of the first one, unless told.
    #[must_use]
    pub fn of_second(mut self, option: &str, place: &OsStr) -> Self {
        self.message = format!("{option} {}: {}", place.display(), self.message);
        if let ("wrong-password", Some(hint)) = (self.code, &mut self.hint) {
            *hint =
                format!("{option}-password-file gives this repository a password of its own; else {hint}");
        }
        self
    }
}
