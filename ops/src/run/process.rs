//! Commands as a run wants them: with a time limit, and with what they said.

use std::io;
use std::time::Duration;

use crate::plan::values::Argv;

/// Most bytes of a command's output that are kept.
pub const OUTPUT_LEN_MAX: usize = 64 << 10;

/// A command to run.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// What.
    pub argv: &'a Argv,
    /// Variables that are added to the environment.
    pub env: &'a [(String, String)],
    /// How long it may take.
    pub timeout: Duration,
    /// Whether it is ended when the run is cancelled. What cleans up is not.
    pub heeds_cancel: bool,
}

/// A command that ended with exit code 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ended {
    /// What it wrote to standard output, as far as it is kept.
    pub stdout: Vec<u8>,
}

/// A command that did not do what it was to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    /// It was not started.
    #[error("cannot run {program}: {reason}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        reason: String,
    },
    /// It failed.
    #[error("{program} failed: {status}{}", said(.output))]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        output: String,
    },
    /// It took too long, and was ended.
    #[error("{program} took longer than {} s and was ended{}", .timeout.as_secs(), said(.output))]
    TimedOut {
        /// The program.
        program: String,
        /// How long it was given.
        timeout: Duration,
        /// The end of what it said.
        output: String,
    },
    /// The run was cancelled.
    #[error("{program} was ended: the run was cancelled")]
    Cancelled {
        /// The program.
        program: String,
    },
}

fn said(output: &str) -> String {
    let lines: Vec<_> = output.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    match lines.len().checked_sub(3) {
        _ if lines.is_empty() => String::new(),
        Some(skipped) => format!("; it said: {}", lines[skipped..].join(" / ")),
        None => format!("; it said: {}", lines.join(" / ")),
    }
}

/// Starts commands.
pub trait Processes: Send + Sync {
    /// Runs a command to its end, with nothing on its standard input.
    ///
    /// # Errors
    /// [`ProcessError`]: anything but exit code 0.
    fn run(&self, order: &Order<'_>) -> Result<Ended, ProcessError>;

    /// Starts a command whose output is wanted.
    ///
    /// # Errors
    /// [`ProcessError::Start`].
    fn source(&self, order: &Order<'_>) -> Result<Box<dyn Source>, ProcessError>;

    /// Starts a command that is given bytes. Its output is nobody's.
    ///
    /// # Errors
    /// [`ProcessError::Start`].
    fn sink(&self, order: &Order<'_>) -> Result<Box<dyn Sink>, ProcessError>;
}

/// A running command whose output is read. If it is dropped before its end, it is killed.
pub trait Source: io::Read + Send {
    /// Waits for the end of the command.
    ///
    /// # Errors
    /// [`ProcessError`]: anything but exit code 0.
    fn finish(self: Box<Self>) -> Result<(), ProcessError>;
}

/// A running command that is given bytes. If it is dropped before its end, it is killed.
pub trait Sink: io::Write + Send {
    /// Says that there are no more bytes, and waits for the end of the command.
    ///
    /// # Errors
    /// [`ProcessError`]: anything but exit code 0.
    fn finish(self: Box<Self>) -> Result<(), ProcessError>;
}
