//! Processes that outlive a run which was killed: they are known by a mark in their environment, which all that they start
//! inherit, so that no number that another process has meanwhile is mistaken for theirs. What has begun a session of its own, as
//! services do, was to outlive the run.

use std::fs;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, getpid, kill_process};

/// The variable that holds the mark.
pub const MARK: &str = "STRONGROOM_RUN";
/// How much of a process's environment is looked at.
const ENVIRONMENT_LEN_MAX: u64 = 4 << 20;
const STEP: Duration = Duration::from_millis(20);

/// A mark that no other run has: numbers of processes come again, and so may times after a clock was set, but not both together.
pub fn new() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}-{}", session(), getpid().as_raw_nonzero(), now.as_nanos())
}

/// The session of this process, as `/proc` tells it: 0 where its leader is outside of the container, which is no valid number of
/// a process (`getsid` of rustix takes it for one).
fn session() -> String {
    session_of("self").unwrap_or_default()
}

/// The session of a process, of which `/proc/<process>/stat` tells.
fn session_of(process: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name, which may hold anything: state, parent, group, session.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(3).map(str::to_owned)
}

/// Ends all processes with this mark, but for this one: they are asked to, and after `patience` made to. Returns how many there
/// were.
pub fn end(mark: &str, patience: Duration) -> usize {
    if mark.is_empty() {
        return 0;
    }
    let found = marked(mark);
    for pid in &found {
        let _ = kill_process(*pid, Signal::TERM);
    }
    let until = Instant::now() + patience;
    while !marked(mark).is_empty() && Instant::now() < until {
        thread::sleep(STEP);
    }
    for pid in marked(mark) {
        let _ = kill_process(pid, Signal::KILL);
    }
    found.len()
}

/// Processes with this mark in their environment, in the session that it was made in. One that has ended, and waits for its
/// parent, has no environment any more.
fn marked(mark: &str) -> Vec<Pid> {
    let Some((session, _)) = mark.split_once('-') else { return Vec::new() };
    let mut pids = having(&format!("{MARK}={mark}"));
    pids.retain(|pid| *pid != getpid() && is_in(*pid, session));
    pids
}

/// All processes that were started with this entry, as `NAME=value`, in their environment.
pub(crate) fn having(entry: &str) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.filter_map(|process| {
        let pid = process.ok()?.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
        has(pid, entry).then_some(pid)
    });
    pids.collect()
}

fn is_in(pid: Pid, session: &str) -> bool {
    session_of(&pid.as_raw_nonzero().to_string()).is_some_and(|own| own == session)
}

fn has(pid: Pid, wanted: &str) -> bool {
    let mut environment = Vec::new();
    let read = fs::File::open(format!("/proc/{}/environ", pid.as_raw_nonzero()))
        .and_then(|file| file.take(ENVIRONMENT_LEN_MAX).read_to_end(&mut environment));
    read.is_ok() && environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn all_that_have_the_mark_are_ended_and_no_others() {
        let mark = new();
        let another = format!("{}-another", session());
        let start = |mark: &str| {
            // What it starts is in another group, and ignores what it is asked.
            let script = "trap '' TERM; sleep 1000 & wait";
            Command::new("sh").args(["-c", script]).env(MARK, mark).process_group(0).spawn().expect("a shell")
        };
        let (mut own, mut other) = (start(&mark), start(&another));
        // A service, in a session of its own.
        let mut service =
            Command::new("setsid").args(["sleep", "1000"]).env(MARK, &mark).spawn().expect("started");
        let until = Instant::now() + Duration::from_secs(20);
        while marked(&mark).len() != 2 || is_in(Pid::from_child(&service), &session()) {
            assert!(Instant::now() < until, "two were not seen");
            thread::sleep(STEP);
        }
        assert_eq!(end("", Duration::ZERO), 0);
        assert_eq!(end(&mark, Duration::from_millis(200)), 2);
        assert!(!own.wait().expect("ended").success());
        assert!(matches!(other.try_wait(), Ok(None)), "the other one is at work still");
        assert!(matches!(service.try_wait(), Ok(None)), "the service is at work still");
        service.kill().and_then(|()| service.wait()).expect("killed");
        assert_eq!(end(&another, Duration::from_millis(200)), 2);
        other.wait().expect("ended");
    }
}
