//! What the process says when it ends.

/// Exit codes, part of the contract of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Ok = 0,
    /// Nothing came of it.
    Failed = 1,
    /// The command line cannot be used.
    Usage = 2,
    /// Completed, but something is missing or may be a mixture.
    Partial = 3,
    /// Data of the repository is lost or in doubt.
    Damage = 4,
    /// Whether all is well could not be found out.
    Unverified = 5,
    /// There is no repository.
    NoRepository = 10,
    /// The password opens nothing.
    WrongPassword = 12,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
