//! Streams to back up: standard input, or what a command writes. The engine starts no processes, so this does.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use strongroom::backup::BackupSource;

use crate::failure::Failure;
use crate::password;

/// A command that is stopped when nobody waits for it any more.
struct Running(Option<Child>);

impl Running {
    /// Waits for the end; anything but exit status 0 is an error.
    fn finish(mut self) -> Result<(), String> {
        let Some(mut child) = self.0.take() else { return Ok(()) };
        match child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("the command failed: {status}")),
            Err(error) => Err(format!("cannot wait for the command: {error}")),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // The backup was given up: what the command still wants to say is for nobody.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How long a reader waits before it looks whether it is still wanted.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A stream that may be silent for long and still ends soon when the backup is cancelled.
struct Cancellable {
    stream: File,
    cancelled: Arc<AtomicBool>,
}

impl Cancellable {
    fn new(stream: OwnedFd, cancelled: &Arc<AtomicBool>) -> Self {
        Self { stream: stream.into(), cancelled: Arc::clone(cancelled) }
    }

    /// Waits for bytes or the end of the stream.
    fn wait(&self) -> io::Result<()> {
        loop {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(io::Error::other("cancelled"));
            }
            match poll(&mut [PollFd::from_borrowed_fd(self.stream.as_fd(), PollFlags::IN)], Some(&WAIT)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Read for Cancellable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait()?;
        self.stream.read(buffer)
    }
}

/// The output of a command, which counts only if the command ends with 0.
pub fn of_command(
    name: &OsStr,
    argv: &[OsString],
    cancelled: &Arc<AtomicBool>,
) -> Result<BackupSource, Failure> {
    let (program, arguments) =
        argv.split_first().ok_or_else(|| Failure::usage("usage", "--command needs a command after --"))?;
    let mut command = Command::new(program);
    for variable in password::VARIABLES {
        command.env_remove(variable);
    }
    let started = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = started.map_err(|error| {
        let message = format!("cannot run {}: {error}; no snapshot was made", program.to_string_lossy());
        Failure::new("command", message)
    })?;
    let stdout = child.stdout.take().expect("piped just now");
    let running = Running(Some(child));
    Ok(BackupSource::Stream {
        name: name.as_bytes().to_vec(),
        reader: Box::new(Cancellable::new(stdout.into(), cancelled)),
        finish: Box::new(move || running.finish()),
    })
}

/// Standard input. Its end is all that is known of it: of a command that fails, use `--command`.
pub fn of_stdin(name: &OsStr, cancelled: &Arc<AtomicBool>) -> Result<BackupSource, Failure> {
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    let stdin = stdin.map_err(|error| Failure::io("standard input cannot be used", &error))?;
    Ok(BackupSource::Stream {
        name: name.as_bytes().to_vec(),
        reader: Box::new(Cancellable::new(stdin, cancelled)),
        finish: Box::new(|| Ok(())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> (Vec<u8>, Result<(), String>) {
        let argv = ["sh", "-c", script].map(OsString::from);
        let source = of_command(OsStr::new("n"), &argv, &Arc::default()).expect("a shell is there");
        let BackupSource::Stream { mut reader, finish, .. } = source else { panic!("a stream") };
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).expect("a pipe");
        (bytes, finish())
    }

    #[test]
    fn only_exit_status_0_counts() {
        assert_eq!(run("printf abc"), (b"abc".to_vec(), Ok(())));
        let (bytes, result) = run("printf abc; exit 3");
        assert_eq!(bytes, b"abc");
        assert!(result.is_err_and(|reason| reason.contains('3')));
        assert!(run("kill -9 $$").1.is_err());
        assert!(of_command(OsStr::new("n"), &["/no/such/program".into()], &Arc::default()).is_err());
    }

    #[test]
    fn a_command_nobody_waits_for_is_stopped() {
        let argv = ["sleep", "1000"].map(OsString::from);
        // Hangs here if it is not.
        drop(of_command(OsStr::new("n"), &argv, &Arc::default()).expect("started"));
    }
}
