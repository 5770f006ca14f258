//! Processes that outlive a run which was killed: they are known by a mark in their environment, which all that they start
//! inherit, so that no number that another process has meanwhile is mistaken for theirs.

use std::fs;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process};

/// The variable that holds the mark.
pub const MARK: &str = "STRONGROOM_RUN";
/// How much of a process's environment is looked at.
const ENVIRONMENT_LEN_MAX: u64 = 4 << 20;
const STEP: Duration = Duration::from_millis(20);

/// Ends all processes with this mark, but for this one: they are asked to, and after `patience` made to. Returns how many there
/// were.
pub fn end(mark: &str, patience: Duration) -> usize {
    if mark.is_empty() {
        return 0;
    }
    let wanted = format!("{MARK}={mark}");
    let found = marked(&wanted);
    for pid in &found {
        let _ = kill_process(*pid, Signal::TERM);
    }
    let until = Instant::now() + patience;
    while !marked(&wanted).is_empty() && Instant::now() < until {
        thread::sleep(STEP);
    }
    for pid in marked(&wanted) {
        let _ = kill_process(pid, Signal::KILL);
    }
    found.len()
}

/// Processes with this entry in their environment. One that has ended, and waits for its parent, has none any more.
fn marked(wanted: &str) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
        (pid != getpid() && has(pid, wanted)).then_some(pid)
    });
    pids.collect()
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
        let mark = format!("test-{}", getpid().as_raw_nonzero());
        let start = |mark: &str| {
            // What it starts is in another group, and ignores what it is asked.
            let script = "trap '' TERM; sleep 1000 & wait";
            Command::new("sh").args(["-c", script]).env(MARK, mark).process_group(0).spawn().expect("a shell")
        };
        let (mut own, mut other) = (start(&mark), start("another"));
        let wanted = format!("{MARK}={mark}");
        let until = Instant::now() + Duration::from_secs(20);
        while marked(&wanted).len() < 2 {
            assert!(Instant::now() < until, "two were not seen");
            thread::sleep(STEP);
        }
        assert_eq!(end("", Duration::ZERO), 0);
        assert_eq!(end(&mark, Duration::from_millis(200)), 2);
        assert!(!own.wait().expect("ended").success());
        assert!(matches!(other.try_wait(), Ok(None)), "the other one is at work still");
        assert_eq!(end("another", Duration::from_millis(200)), 2);
        other.wait().expect("ended");
    }
}
