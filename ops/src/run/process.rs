//! Commands as a run wants them: with a time limit, and with what they said.

use std::io;
use std::time::Duration;

use crate::plan::values::Argv;

/// What comes before a command's own words in a message.
const SAID: &str = "; it said: ";
/// Most bytes of each line of it.
const LINE_LEN_MAX: usize = 300;
/// Longest message that is kept.
const MESSAGE_LEN_MAX: usize = 1000;

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

/// The end of what a command said, to be put behind a message; see [`without_output`].
pub(crate) fn said(output: &str) -> String {
    let lines: Vec<_> = output.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last: Vec<_> =
        lines[lines.len().saturating_sub(3)..].iter().map(|line| beginning(line, LINE_LEN_MAX)).collect();
    if last.is_empty() {
        return String::new();
    }
    // It becomes part of the environment of hooks, in which no NUL can be, and is shown on terminals.
    format!("{SAID}{}", last.join(" / ").replace(char::is_control, "\u{fffd}"))
}

/// A message as it is kept and sent elsewhere: whoever looks at the run may read what a command said, but nobody knows whether
/// that is a secret.
pub fn without_output(message: &str) -> String {
    beginning(message.split(SAID).next().unwrap_or_default(), MESSAGE_LEN_MAX).to_owned()
}

/// At most so many bytes, and whole characters.
pub(super) fn beginning(text: &str, len_max: usize) -> &str {
    let mut end = text.len().min(len_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
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

    /// What all commands that are started here are known by, after a kill; empty if by nothing.
    fn mark(&self) -> &str {
        ""
    }

    /// Ends commands that were started by another process under this mark, and all that they started; returns how many
    /// processes these were.
    fn end_marked(&self, _mark: &str) -> usize {
        0
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_said_is_bounded_and_not_kept() {
        let output = format!("one\n\ntwo\n{}\nthe token is hunter2\n", "ä".repeat(5000));
        let failed = ProcessError::Failed { program: "dump".into(), status: "exit code 1".into(), output };
        let message = failed.to_string();
        assert!(message.starts_with("dump failed: exit code 1; it said: two / ää"), "{message}");
        assert!(message.ends_with(" / the token is hunter2") && message.len() < 500, "{message}");
        assert_eq!(without_output(&format!("a: b.dump: {message}")), "a: b.dump: dump failed: exit code 1");
        assert_eq!(without_output(&"ä".repeat(5000)).len(), MESSAGE_LEN_MAX);
        assert_eq!(said("a\0b\x1b[2J\nc\n"), "; it said: a\u{fffd}b\u{fffd}[2J / c");
    }
}
