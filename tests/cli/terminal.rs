//! On a terminal: passwords are asked for and not shown, and a bar tells how fast it goes and how long it takes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::support::{Bench, CHEAP, PASSWORD, Run, cannot, noise};

/// A run of the command with a terminal of its own, as its standard input and standard error.
struct Session {
    child: std::process::Child,
    terminal: File,
    shown: Receiver<Vec<u8>>,
    screen: String,
    reader: JoinHandle<()>,
}

impl Session {
    /// Starts `command` on a new terminal of the usual 80 columns; `None` where that cannot be done.
    fn start(command: &Command) -> Option<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let open = || -> rustix::io::Result<(File, File)> {
            let ours = rustix::pty::openpt(flags)?;
            rustix::pty::grantpt(&ours)?;
            rustix::pty::unlockpt(&ours)?;
            let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(&ours, size)?;
            let name = rustix::pty::ptsname(&ours, Vec::new())?;
            let path = OsStr::from_bytes(name.to_bytes());
            let theirs =
                File::options().read(true).write(true).open(path).map_err(|_| rustix::io::Errno::NOENT)?;
            Ok((File::from(ours), theirs))
        };
        let (terminal, theirs) = match open() {
            Ok(both) => both,
            Err(error) => {
                cannot("make a terminal", &error);
                return None;
            }
        };
        // `setsid` makes the terminal the one that a password is asked for on.
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        session.current_dir(command.get_current_dir().expect("the bench"));
        session.env("TERM", "xterm").env_remove("NO_COLOR");
        let stderr = theirs.try_clone().expect("a handle");
        let child = match session.stdin(theirs).stdout(Stdio::piped()).stderr(stderr).spawn() {
            Ok(child) => child,
            Err(error) => {
                cannot("start a session", &error);
                return None;
            }
        };
        // This process must hold no end of the terminal that would keep it from ending.
        drop(session);
        let (tell, shown) = channel();
        let mut screen = terminal.try_clone().expect("a handle");
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Ends with an error when the last handle of the other side is closed.
            while let Ok(read @ 1..) = screen.read(&mut buffer) {
                if tell.send(buffer[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        Some(Self { child, terminal, shown, screen: String::new(), reader })
    }

    /// Waits until `text` is shown; what was shown up to there is used up.
    fn wait_for(&mut self, text: &str) {
        loop {
            if let Some(at) = self.screen.find(text) {
                self.screen.drain(..at + text.len());
                return;
            }
            match self.shown.recv_timeout(Duration::from_secs(60)) {
                Ok(bytes) => self.screen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("{text:?} was not shown ({error}), but {:?}", self.screen),
            }
        }
    }

    fn type_line(&mut self, text: &str) {
        self.terminal.write_all(format!("{text}\n").as_bytes()).expect("typed");
    }

    /// Waits for the end; gives what standard output got and, as standard error, what the screen showed last.
    fn end(mut self) -> Run {
        let stdout = std::io::read_to_string(self.child.stdout.take().expect("piped")).expect("text");
        let status = self.child.wait().expect("ended");
        self.reader.join().expect("no panic");
        while let Ok(bytes) = self.shown.try_recv() {
            self.screen.push_str(&String::from_utf8_lossy(&bytes));
        }
        Run { code: status.code().expect("ended by itself"), stdout, stderr: self.screen }
    }
}

/// The command without a password.
fn asking(bench: &Bench, args: &[&str]) -> Command {
    let mut command = bench.command();
    command.env_remove("STRONGROOM_PASSWORD").args(args);
    command
}

#[test]
fn a_new_password_is_asked_for_twice_and_not_shown() {
    let bench = Bench::empty();
    let init = [&["init"][..], &CHEAP].concat();
    let Some(mut session) = Session::start(&asking(&bench, &init)) else { return };
    session.wait_for("password for the new repository: ");
    session.type_line(PASSWORD);
    session.wait_for("the same again: ");
    session.type_line("something else");
    let run = session.end().expect(1);
    assert!(run.stderr.contains("differ"), "{run:?}");
    assert!(!bench.repository().exists(), "nothing was made");

    let mut session = Session::start(&asking(&bench, &init)).expect("as before");
    session.wait_for("password for the new repository: ");
    session.type_line(PASSWORD);
    session.wait_for("the same again: ");
    session.type_line(PASSWORD);
    let run = session.end().expect(0);
    assert!(run.stdout.contains("made repository"), "{run:?}");
    assert!(!run.stderr.contains(PASSWORD), "the password was shown: {run:?}");
    bench.run(["snapshots"]).expect(0);
}

#[test]
fn the_password_of_a_repository_is_asked_for_once_and_not_shown() {
    let bench = Bench::new();
    let Some(mut session) = Session::start(&asking(&bench, &["snapshots", "--json"])) else { return };
    session.wait_for("password for the repository: ");
    session.type_line(PASSWORD);
    let run = session.end().expect(0);
    assert_eq!(run.stdout, "[]\n");
    assert!(!run.stderr.contains(PASSWORD), "the password was shown: {run:?}");

    let mut session = Session::start(&asking(&bench, &["snapshots"])).expect("as before");
    session.wait_for("password for the repository: ");
    session.type_line("not this one");
    let run = session.end().expect(12);
    assert!(run.stderr.contains("password") && run.stderr.contains("hint: "), "{run:?}");
    assert!(!run.stderr.contains("not this one"), "the password was shown: {run:?}");
}

#[test]
fn a_password_to_be_added_is_asked_for_after_the_one_that_opens() {
    let bench = Bench::new();
    let add = [&["key", "add", "--label", "typed"][..], &CHEAP].concat();
    let Some(mut session) = Session::start(&asking(&bench, &add)) else { return };
    session.wait_for("password for the repository: ");
    session.type_line(PASSWORD);
    for prompt in ["new password: ", "the same again: "] {
        session.wait_for(prompt);
        session.type_line("battery staple");
    }
    session.end().expect(0);
    let mut other = bench.command();
    Run::of(other.env("STRONGROOM_PASSWORD", "battery staple").arg("snapshots")).expect(0);
}

/// A source large enough to take a moment.
fn large() -> Bench {
    let bench = Bench::new();
    for number in 0..8 {
        bench.write(&format!("src/{number}"), noise(number, 4 << 20));
    }
    bench
}

/// Runs a command on a terminal; where it is done before there is any time left to tell, again with more to do.
fn slow_enough(bench: &Bench, args: &[&str]) -> Option<Run> {
    for tries in 1..=4 {
        let mut command = bench.command();
        let run = Session::start(command.args(args))?.end().expect(0);
        if run.stderr.contains(" left") || tries == 4 {
            return Some(run);
        }
        for number in 0..8u64 << tries {
            bench.write(&format!("src/{tries}-{number}"), noise(1000 * tries + number, 4 << 20));
        }
        if args[0] != "backup" {
            Run::of(bench.command().args(["backup", "src"])).expect(0);
        }
        let _ = std::fs::remove_dir_all(bench.path("out"));
    }
    None
}

#[test]
fn a_bar_tells_rate_and_time_left_and_goes_away() {
    let bench = large();
    let source = bench.path("src").canonicalize().expect("there");
    let what = format!("latest:{}", source.display());
    for args in [
        // The first has no snapshot to go by: it counts what there is. The second expects what the first found.
        &["backup", "src"][..],
        &["backup", "src"],
        &["restore", &what, "--target", "out"],
        &["check", "--read-data"],
    ] {
        let Some(run) = slow_enough(&bench, args) else { return };
        let frames: Vec<_> = run.stderr.split('\r').collect();
        let bar = frames.iter().find(|frame| frame.contains("left"));
        let bar = bar.unwrap_or_else(|| panic!("{args:?}: no time left in {:?}", run.stderr));
        // All of it in 80 columns.
        for part in ["%", " of ", "B/s", " left"] {
            assert!(bar.contains(part), "{args:?}: no {part:?} in {bar:?}");
        }
        assert!(!run.stdout.contains("B/s"), "{args:?}: the bar is no result: {run:?}");
        assert!(run.stderr.trim_end().ends_with("\u{1b}[2K"), "{args:?}: the bar stays: {run:?}");
    }
}

#[test]
fn no_bar_where_nobody_looks_or_nobody_wants_it() {
    let bench = large();
    for args in [["backup", "--force", "src"], ["check", "--read-data", "-v"]] {
        let run = bench.run(args).expect(0);
        assert_eq!(run.stderr, "", "{args:?}");
    }
    let mut quiet = bench.command();
    let Some(session) = Session::start(quiet.args(["backup", "--quiet", "--force", "src"])) else { return };
    let run = session.end().expect(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
    let mut json = bench.command();
    let session = Session::start(json.args(["backup", "--json", "--force", "src"])).expect("as before");
    let run = session.end().expect(0);
    assert_eq!(run.stderr, "");
    assert_eq!(run.last("summary")["files_new"], 8);
}
