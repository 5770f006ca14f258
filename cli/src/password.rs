//! Where passwords come from: options, the environment, a prompt.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::termios::{LocalModes, OptionalActions, Termios};
use strongroom::crypto::Password;
use zeroize::Zeroizing;

use strongroom_ops::plan::Plan;
use strongroom_ops::plan::types::Repo;

use crate::args::Global;
use crate::exit::Exit;
use crate::failure::Failure;

pub use strongroom_ops::run::system::PASSWORDS as VARIABLES;

/// How long a password command of a plan may take.
const UNATTENDED: Duration = Duration::from_secs(60);
/// How long any other may take: it may ask somebody.
const ATTENDED: Duration = Duration::from_secs(600);
const STEP: Duration = Duration::from_millis(10);

/// Longest password that is read from a file or command.
const PASSWORD_LEN_MAX: u64 = 64 << 10;

/// Where a password comes from.
enum Source {
    Value(OsString),
    File(PathBuf),
    Command(OsString),
    Prompt,
}

/// The password that opens the repository.
pub fn existing(global: &Global) -> Result<Password, Failure> {
    match source(global)? {
        Source::Prompt => prompt("password for the repository: "),
        source => read(source),
    }
}

/// The password of a new repository: asked for twice where it is asked for.
pub fn first(global: &Global) -> Result<Password, Failure> {
    match source(global)? {
        Source::Prompt => prompt_twice("password for the new repository: "),
        source => read(source),
    }
}

/// A password to be added: from `file`, else asked for twice.
pub fn new(file: Option<&Path>) -> Result<Password, Failure> {
    match file {
        Some(file) => read(Source::File(file.to_owned())),
        None => prompt_twice("new password: "),
    }
}

/// The password of a second repository: as its own options say, else as for every command.
pub fn second(file: Option<&Path>, command: Option<&OsString>, global: &Global) -> Result<Password, Failure> {
    match (file, command) {
        (Some(file), _) => read(Source::File(file.to_owned())),
        (None, Some(command)) => read(Source::Command(command.clone())),
        (None, None) => existing(global),
    }
}

/// The password of a repository of a plan: as the plan says, else as for every command.
pub fn planned(plan: &Plan, repo: &Repo, global: &Global) -> Result<Password, Failure> {
    match (&repo.password_command, &repo.password_file) {
        (Some(argv), _) => {
            let mut command = Command::new(argv.program());
            for name in plan.addresses() {
                command.env_remove(name);
            }
            let mut bytes = run(command.args(&argv.words()[1..]), UNATTENDED)?;
            drop_line_end(&mut bytes);
            Ok(Password::new(std::mem::take(&mut *bytes)))
        }
        (None, Some(file)) => read(Source::File(file.into())),
        (None, None) => existing(global),
    }
}

/// Options come before the environment. Of two that contradict each other none is taken.
fn source(global: &Global) -> Result<Source, Failure> {
    if let Some(file) = &global.password_file {
        return Ok(Source::File(file.clone()));
    }
    if let Some(command) = &global.password_command {
        return Ok(Source::Command(command.clone()));
    }
    let mut found = VARIABLES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    match (found.next(), found.next()) {
        (None, _) => Ok(Source::Prompt),
        (Some(("STRONGROOM_PASSWORD", value)), None) => Ok(Source::Value(value)),
        (Some(("STRONGROOM_PASSWORD_FILE", file)), None) => Ok(Source::File(file.into())),
        (Some((_, command)), None) => Ok(Source::Command(command)),
        (Some((one, _)), Some((other, _))) => {
            let message = format!("{one} and {other} are both set: which password is meant?");
            Err(Failure::usage("usage", message).hint("unset one of them"))
        }
    }
}

fn read(source: Source) -> Result<Password, Failure> {
    let bytes = match source {
        Source::Value(value) => value.into_vec(),
        Source::File(path) => {
            let read = File::open(&path).and_then(read_limited);
            let mut bytes =
                read.map_err(|error| Failure::io(format_args!("cannot read {}", path.display()), &error))?;
            drop_line_end(&mut bytes);
            std::mem::take(&mut *bytes)
        }
        Source::Command(command) => {
            let mut bytes = run(Command::new("sh").arg("-c").arg(command), ATTENDED)?;
            drop_line_end(&mut bytes);
            std::mem::take(&mut *bytes)
        }
        Source::Prompt => return prompt("password: "),
    };
    Ok(Password::new(bytes))
}

fn read_limited(mut from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    from.by_ref().take(PASSWORD_LEN_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > PASSWORD_LEN_MAX {
        let message = format!("a password has at most {PASSWORD_LEN_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(bytes)
}

/// Runs a command that prints a password. It is ended when it takes too long, and nothing waits for what it has started.
fn run(command: &mut Command, limit: Duration) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |error: io::Error| Failure::io("the password command failed", &error);
    // Standard input may be what is to be backed up; a command that asks people uses the terminal itself.
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let stdout = child.stdout.take().expect("piped just now");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(read_limited(stdout)));
    let until = Instant::now() + limit;
    let bytes = receiver.recv_timeout(limit);
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) if bytes.is_ok() => break status,
            None if bytes.is_ok() && Instant::now() < until => thread::sleep(STEP),
            _ => {
                let _ = child.kill().and_then(|()| child.wait());
                let message = format!("the password command took longer than {} s", limit.as_secs());
                return Err(Failure::new("password-command", message).hint(
                    "run it by hand: it may wait for somebody to answer, or for a service that is down",
                ));
            }
        }
    };
    if !status.success() {
        return Err(Failure::new("password-command", format!("the password command failed: {status}")));
    }
    bytes.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed)
}

fn drop_line_end(bytes: &mut Vec<u8>) {
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
}

fn prompt(text: &str) -> Result<Password, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new("no-password", "no password was given, and there is no terminal to ask on")
            .exit(Exit::Usage)
            .hint("use --password-file, --password-command or STRONGROOM_PASSWORD"));
    }
    let mut password = ask(text)?;
    Ok(Password::new(std::mem::take(&mut *password).into_bytes()))
}

/// Asks on the terminal, which shows nothing of what is typed: not even of what comes before the prompt is out.
fn ask(text: &str) -> Result<Zeroizing<String>, Failure> {
    let _silence = Silence::begin();
    rpassword::prompt_password(text)
        .map(Zeroizing::new)
        .map_err(|error| Failure::io("cannot ask for the password", &error))
}

/// The terminal does not show what is typed as long as this lives.
struct Silence(Option<(File, Termios)>);

impl Silence {
    /// What cannot be silenced is left to `rpassword`, which reports it.
    fn begin() -> Self {
        let silenced = || -> io::Result<(File, Termios)> {
            let terminal = File::options().read(true).write(true).open("/dev/tty")?;
            let before = rustix::termios::tcgetattr(&terminal)?;
            let mut silent = before.clone();
            silent.local_modes.remove(LocalModes::ECHO);
            rustix::termios::tcsetattr(&terminal, OptionalActions::Now, &silent)?;
            Ok((terminal, before))
        };
        Self(silenced().ok())
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Some((terminal, before)) = &self.0 {
            let _ = rustix::termios::tcsetattr(terminal, OptionalActions::Now, before);
        }
    }
}

fn prompt_twice(text: &str) -> Result<Password, Failure> {
    if !io::stdin().is_terminal() {
        return prompt(text);
    }
    let (mut once, twice) = (ask(text)?, ask("the same again: ")?);
    if *once != *twice {
        return Err(Failure::new("password-mismatch", "the two passwords differ; nothing was changed"));
    }
    Ok(Password::new(std::mem::take(&mut *once).into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_command_has_a_time_limit() {
        let ask = |script: &str, limit| run(Command::new("sh").args(["-c", script]), limit);
        let second = Duration::from_secs(1);
        let before = Instant::now();
        for script in ["exec sleep 1000", "echo secret; exec sleep 1000", "exec >&-; exec sleep 1000"] {
            let failure = ask(script, second).expect_err(script);
            assert_eq!(
                (failure.code, failure.message.as_str()),
                ("password-command", "the password command took longer than 1 s")
            );
        }
        assert!(before.elapsed() < Duration::from_secs(30));
        assert_eq!(**ask("echo secret", ATTENDED).expect("good"), *b"secret\n");
        let failure = ask("echo secret; exit 3", ATTENDED).expect_err("it failed");
        assert!(failure.message.ends_with("failed: exit status: 3"), "{}", failure.message);
    }

    #[test]
    fn one_line_end_is_dropped() {
        for (stored, password) in
            [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a "), ("\n", ""), ("a\r", "a\r")]
        {
            let mut bytes = stored.as_bytes().to_vec();
            drop_line_end(&mut bytes);
            assert_eq!(bytes, password.as_bytes(), "{stored:?}");
        }
    }
}
