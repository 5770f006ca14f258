//! Streams to back up: standard input, or what a command writes. The engine starts no processes, so this does.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};

use strongroom::backup::BackupSource;

use crate::failure::Failure;

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

/// The output of a command, which counts only if the command ends with 0.
pub fn of_command(name: &OsStr, argv: &[OsString]) -> Result<BackupSource, Failure> {
    let (program, arguments) =
        argv.split_first().ok_or_else(|| Failure::usage("usage", "--command needs a command after --"))?;
    let started = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = started.map_err(|error| {
        let message = format!("cannot run {}: {error}; no snapshot was made", program.to_string_lossy());
        Failure::new("command", message)
    })?;
    let stdout = child.stdout.take().expect("piped just now");
    let running = Running(Some(child));
    Ok(BackupSource::Stream {
        name: name.as_bytes().to_vec(),
        reader: Box::new(stdout),
        finish: Box::new(move || running.finish()),
    })
}

/// Standard input. Its end is all that is known of it: of a command that fails, use `--command`.
pub fn of_stdin(name: &OsStr) -> BackupSource {
    BackupSource::Stream {
        name: name.as_bytes().to_vec(),
        reader: Box::new(std::io::stdin()),
        finish: Box::new(|| Ok(())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn run(script: &str) -> (Vec<u8>, Result<(), String>) {
        let argv = ["sh", "-c", script].map(OsString::from);
        let source = of_command(OsStr::new("n"), &argv).expect("a shell is there");
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
        assert!(of_command(OsStr::new("n"), &["/no/such/program".into()]).is_err());
    }

    #[test]
    fn a_command_nobody_waits_for_is_stopped() {
        let argv = ["sleep", "1000"].map(OsString::from);
        // Hangs here if it is not.
        drop(of_command(OsStr::new("n"), &argv).expect("started"));
    }
}
