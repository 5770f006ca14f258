//! Commands of this system: each in a process group of its own, so that what it starts ends with it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::run::marks::{self, MARK};
use crate::run::process::{Ended, OUTPUT_LEN_MAX, Order, ProcessError, Processes, Sink, Source};

/// How long a command that was asked to end may take to do so.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a command's last words are waited for. Something that it left running may hold its output open.
const LAST_WORDS: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(20);

/// Starts commands on this system.
#[derive(Debug, Clone)]
pub struct SystemProcesses {
    cancelled: Arc<AtomicBool>,
    mark: String,
    hidden: Vec<String>,
}

/// Variables that lead to passwords of repositories: no command that is backed up or run by a plan is to learn them.
pub const PASSWORDS: [&str; 3] =
    ["STRONGROOM_PASSWORD", "STRONGROOM_PASSWORD_FILE", "STRONGROOM_PASSWORD_COMMAND"];

impl Default for SystemProcesses {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl SystemProcesses {
    /// Commands that heed it are ended when `cancelled` is set.
    pub fn new(cancelled: Arc<AtomicBool>) -> Self {
        Self { cancelled, mark: marks::new(), hidden: PASSWORDS.map(str::to_owned).into() }
    }

    /// The same, where commands do not get these variables either, such as addresses that are secrets.
    #[must_use]
    pub fn hiding<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.hidden.extend(names.into_iter().map(str::to_owned));
        self
    }

    fn start(&self, order: &Order<'_>, stdin: Stdio, stdout: Stdio) -> Result<Running, ProcessError> {
        let program = order.argv.program().to_owned();
        if order.heeds_cancel && self.cancelled.load(Ordering::Relaxed) {
            return Err(ProcessError::Cancelled { program });
        }
        let mut command = Command::new(&program);
        for name in &self.hidden {
            command.env_remove(name);
        }
        let child = command
            .args(&order.argv.words()[1..])
            .env(MARK, &self.mark)
            .envs(order.env.iter().map(|(name, value)| (name, value)))
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| ProcessError::Start { program: program.clone(), reason: error.to_string() })?;
        let mut running = Running {
            program,
            child: Some(child),
            deadline: Instant::now() + order.timeout,
            timeout: order.timeout,
            cancelled: order.heeds_cancel.then(|| Arc::clone(&self.cancelled)),
            words: Words::default(),
        };
        if let Some(stderr) = running.child.as_mut().and_then(|child| child.stderr.take()) {
            running.words = Words::of(stderr);
        }
        Ok(running)
    }
}

impl Processes for SystemProcesses {
    fn run(&self, order: &Order<'_>) -> Result<Ended, ProcessError> {
        let mut running = self.start(order, Stdio::null(), Stdio::piped())?;
        let stdout = running.child.as_mut().and_then(|child| child.stdout.take());
        let said = stdout.map(Words::of).unwrap_or_default();
        match running.finish() {
            Ok(()) => Ok(Ended { stdout: said.get() }),
            // Some tools complain on standard output.
            Err(ProcessError::Failed { program, status, output }) if output.trim().is_empty() => {
                let output = String::from_utf8_lossy(&said.get()).into_owned();
                Err(ProcessError::Failed { program, status, output })
            }
            Err(error) => Err(error),
        }
    }

    fn source(&self, order: &Order<'_>) -> Result<Box<dyn Source>, ProcessError> {
        let mut running = self.start(order, Stdio::null(), Stdio::piped())?;
        let stdout = running.child.as_mut().and_then(|child| child.stdout.take());
        let pipe = File::from(OwnedFd::from(stdout.expect("piped just now")));
        Ok(Box::new(SystemSource { running, pipe }))
    }

    fn sink(&self, order: &Order<'_>) -> Result<Box<dyn Sink>, ProcessError> {
        let mut running = self.start(order, Stdio::piped(), Stdio::null())?;
        let stdin = running.child.as_mut().and_then(|child| child.stdin.take());
        let pipe = File::from(OwnedFd::from(stdin.expect("piped just now")));
        // A command that takes no more must not hold up the run beyond its time.
        let blocking = |error: Errno| ProcessError::Start {
            program: running.program.clone(),
            reason: io::Error::from(error).to_string(),
        };
        let flags = fcntl_getfl(&pipe).map_err(blocking)?;
        fcntl_setfl(&pipe, flags | OFlags::NONBLOCK).map_err(blocking)?;
        Ok(Box::new(SystemSink { running, pipe: Some(pipe) }))
    }

    fn mark(&self) -> &str {
        &self.mark
    }

    fn end_marked(&self, mark: &str) -> usize {
        marks::end(mark, PATIENCE)
    }
}

/// A process that is ended when nobody waits for it any more.
struct Running {
    program: String,
    child: Option<Child>,
    deadline: Instant,
    timeout: Duration,
    cancelled: Option<Arc<AtomicBool>>,
    words: Words,
}

impl Running {
    fn is_cancelled(&self) -> bool {
        self.cancelled.as_ref().is_some_and(|cancelled| cancelled.load(Ordering::Relaxed))
    }

    /// Why the command may not go on.
    fn end_of_patience(&self) -> Option<ProcessError> {
        let program = self.program.clone();
        if self.is_cancelled() {
            return Some(ProcessError::Cancelled { program });
        }
        (Instant::now() >= self.deadline).then(|| {
            let output = String::from_utf8_lossy(&self.words.so_far()).into_owned();
            ProcessError::TimedOut { program, timeout: self.timeout, output }
        })
    }

    /// Waits for the pipe, or for the end of patience.
    fn wait_for(&self, pipe: &File, what: PollFlags) -> io::Result<()> {
        let step = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        loop {
            if let Some(error) = self.end_of_patience() {
                return Err(io::Error::other(error.to_string()));
            }
            match poll(&mut [PollFd::from_borrowed_fd(pipe.as_fd(), what)], Some(&step)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn finish(&mut self) -> Result<(), ProcessError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) => {}
                Err(error) => break Err(error),
            }
            if let Some(error) = self.end_of_patience() {
                end(&mut child);
                return Err(error);
            }
            thread::sleep(STEP);
        };
        let failed = |status: String, output: Vec<u8>| ProcessError::Failed {
            program: self.program.clone(),
            status,
            output: String::from_utf8_lossy(&output).into_owned(),
        };
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(failed(ending(status), self.words.get())),
            Err(error) => Err(failed(error.to_string(), Vec::new())),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
        }
    }
}

fn ending(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

/// Ends a process and those it started: it is asked to, and then made to.
fn end(child: &mut Child) {
    let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return };
    let _ = kill_process_group(group, Signal::TERM);
    has_ended(child, PATIENCE);
    // Also for those of the group that outlive their first.
    let _ = kill_process_group(group, Signal::KILL);
    has_ended(child, PATIENCE);
}

/// Waits for the end of a process, but no longer than this: one that storage which is gone holds in the kernel does not even end when it
/// is killed, and would hold the run, and all that wait for it, for as long.
fn has_ended(child: &mut Child, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < until => thread::sleep(STEP),
            Ok(None) => return false,
            Ok(Some(_)) | Err(_) => return true,
        }
    }
}

/// The end of what is written to a pipe, taken in by a thread of its own.
#[derive(Default)]
struct Words {
    kept: Arc<Mutex<Vec<u8>>>,
    ended: Option<mpsc::Receiver<()>>,
}

impl Words {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let kept: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (done, ended) = mpsc::channel();
        let into = Arc::clone(&kept);
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                let mut kept = into.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&buffer[..read]);
                let surplus = kept.len().saturating_sub(OUTPUT_LEN_MAX);
                kept.drain(..surplus);
            }
            let _ = done.send(());
        });
        Self { kept, ended: Some(ended) }
    }

    /// All of it, when the process has ended.
    fn get(&self) -> Vec<u8> {
        if let Some(ended) = &self.ended {
            let _ = ended.recv_timeout(LAST_WORDS);
        }
        self.so_far()
    }

    fn so_far(&self) -> Vec<u8> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct SystemSource {
    running: Running,
    pipe: File,
}

impl Read for SystemSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.running.wait_for(&self.pipe, PollFlags::IN)?;
        self.pipe.read(buffer)
    }
}

impl Source for SystemSource {
    fn finish(mut self: Box<Self>) -> Result<(), ProcessError> {
        self.running.finish()
    }
}

struct SystemSink {
    running: Running,
    pipe: Option<File>,
}

impl Write for SystemSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let Some(pipe) = &mut self.pipe else { return Ok(bytes.len()) };
            match pipe.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let Some(pipe) = &self.pipe else { return Ok(bytes.len()) };
                    self.running.wait_for(pipe, PollFlags::OUT)?;
                }
                // It wants no more: its exit code says whether that is well.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.pipe = None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for SystemSink {
    fn finish(mut self: Box<Self>) -> Result<(), ProcessError> {
        self.pipe = None;
        self.running.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::values::Argv;

    fn shell(script: &str) -> Argv {
        Argv::try_from(["sh", "-c", script].map(str::to_owned).to_vec()).expect("a command")
    }

    fn order(argv: &Argv, timeout: Duration) -> Order<'_> {
        Order { argv, env: &[], timeout, heeds_cancel: true }
    }

    fn run(script: &str, timeout: Duration) -> Result<Ended, ProcessError> {
        SystemProcesses::default().run(&order(&shell(script), timeout))
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn only_exit_code_0_is_good_and_the_rest_says_why() {
        assert_eq!(run("printf out; printf err >&2", MINUTE).expect("good").stdout, b"out");
        let error = run("echo one; echo two >&2; exit 3", MINUTE).expect_err("bad").to_string();
        assert_eq!(error, "sh failed: exit code 3; it said: two");
        let error = run("echo on stdout; exit 1", MINUTE).expect_err("bad").to_string();
        assert_eq!(error, "sh failed: exit code 1; it said: on stdout");
        assert!(run("kill -9 $$", MINUTE).expect_err("bad").to_string().contains("signal: 9"));
        let none = Argv::try_from(vec!["/no/such/program".to_owned()]).expect("a command");
        let missing = SystemProcesses::default().run(&order(&none, MINUTE));
        assert!(matches!(missing, Err(ProcessError::Start { .. })));
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; echo waiting >&2; wait", file.display());
        let error = run(&script, Duration::from_millis(700)).expect_err("too long");
        assert!(
            matches!(error, ProcessError::TimedOut { .. }) && error.to_string().contains("waiting"),
            "{error}"
        );
        let pid = std::fs::read_to_string(file).expect("a pid");
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        // It is killed, and that takes a moment where much else is at work.
        let until = Instant::now() + Duration::from_secs(10);
        while !(state().is_empty() || state().contains(" Z ")) {
            assert!(Instant::now() < until, "{}", state());
            thread::sleep(STEP);
        }
    }

    #[test]
    fn a_command_that_does_not_end_when_it_is_killed_holds_up_nobody() {
        let mut child = Command::new("sleep").arg("600").spawn().expect("started");
        let before = Instant::now();
        assert!(!has_ended(&mut child, Duration::from_millis(100)));
        assert!(before.elapsed() < Duration::from_secs(60));
        child.kill().expect("killed");
        assert!(has_ended(&mut child, PATIENCE));
    }

    #[test]
    fn what_is_hidden_is_not_inherited() {
        let argv = shell("env");
        let names = |processes: &SystemProcesses| {
            let said = processes.run(&order(&argv, MINUTE)).expect("good").stdout;
            String::from_utf8_lossy(&said).lines().any(|line| line.starts_with("PATH="))
        };
        assert!(names(&SystemProcesses::default()) && !names(&SystemProcesses::default().hiding(["PATH"])));
    }

    #[test]
    fn commands_are_known_by_a_mark() {
        let processes = SystemProcesses::default();
        let argv = shell("echo $STRONGROOM_RUN; exec sleep 1000");
        let mut source = processes.source(&order(&argv, MINUTE)).expect("started");
        let mut said = vec![0; processes.mark().len() + 1];
        source.read_exact(&mut said).expect("a line");
        assert_eq!(String::from_utf8_lossy(&said), format!("{}\n", processes.mark()));
        assert_eq!(SystemProcesses::default().end_marked(processes.mark()), 1);
        assert!(source.finish().is_err(), "it was ended");
    }

    #[test]
    fn output_that_is_held_open_by_others_holds_up_nobody() {
        let before = Instant::now();
        let ended = run("echo done; sleep 30 & exit 0", MINUTE).expect("good");
        assert_eq!(ended.stdout, b"done\n");
        assert!(before.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_cancelled_run_ends_its_commands() {
        let cancelled = Arc::new(AtomicBool::new(false));
        let processes = SystemProcesses::new(Arc::clone(&cancelled));
        let argv = shell("sleep 1000");
        let mut source = processes.source(&order(&argv, MINUTE)).expect("started");
        cancelled.store(true, Ordering::Relaxed);
        assert!(source.read(&mut [0; 8]).expect_err("cancelled").to_string().contains("cancelled"));
        assert!(matches!(source.finish(), Err(ProcessError::Cancelled { .. })));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("begun");
        let argv = shell(&format!("touch {}", file.display()));
        assert!(matches!(processes.run(&order(&argv, MINUTE)), Err(ProcessError::Cancelled { .. })));
        assert!(!file.exists(), "nothing is begun any more");
        let argv = shell("exit 0");
        let order = Order { heeds_cancel: false, ..order(&argv, MINUTE) };
        assert!(processes.run(&order).is_ok(), "what cleans up is run all the same");
    }

    #[test]
    fn a_sink_takes_bytes_or_not() {
        let processes = SystemProcesses::default();
        let give = |script: &str, len: usize| {
            let argv = shell(script);
            let mut sink = processes.sink(&order(&argv, Duration::from_secs(3))).expect("started");
            let written = sink.write_all(&vec![b'x'; len]);
            (written.is_ok(), sink.finish())
        };
        assert_eq!(give("test $(wc -c) = 3000000", 3_000_000), (true, Ok(())));
        assert_eq!(give("exec 0<&-; exit 0", 3_000_000), (true, Ok(())));
        assert!(give("head -c 1 > /dev/null; exit 1", 3_000_000).1.is_err());
        assert!(!give("sleep 60", 3_000_000).0, "it never reads");
    }
}
