//! The output of a command as a stream to back up, and all that has to be right before it counts.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use strongroom::backup::StreamSource;

use crate::plan::effective::STREAM_TIMEOUT;
use crate::plan::types::Stream;
use crate::plan::values::Lapse;
use crate::run::process::{Order, Processes, Sink, Source};
use crate::words::count;

/// The stream as the engine takes it. The command is started when the first byte is asked for.
pub fn source(stream: &Stream, env: &[(String, String)], processes: &Arc<dyn Processes>) -> StreamSource {
    let checked = Arc::new(Mutex::new(Checked {
        stream: stream.clone(),
        env: env.to_vec(),
        processes: Arc::clone(processes),
        running: None,
        tee: None,
        length: 0,
        tail: Vec::new(),
    }));
    let reader = SharedReader(Arc::clone(&checked));
    StreamSource {
        name: stream.name.clone().into_bytes(),
        reader: Box::new(reader),
        finish: Box::new(move || checked.lock().unwrap_or_else(PoisonError::into_inner).finish()),
    }
}

struct SharedReader(Arc<Mutex<Checked>>);

impl Read for SharedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).read(buffer)
    }
}

struct Checked {
    stream: Stream,
    env: Vec<(String, String)>,
    processes: Arc<dyn Processes>,
    running: Option<Box<dyn Source>>,
    tee: Option<Box<dyn Sink>>,
    length: u64,
    /// The last bytes, if they have to be something.
    tail: Vec<u8>,
}

impl Checked {
    fn timeout(&self) -> Duration {
        timeout(self.stream.timeout, STREAM_TIMEOUT)
    }

    fn start(&mut self) -> io::Result<()> {
        let timeout = self.timeout();
        let order = |argv| Order { argv, env: &self.env, timeout, heeds_cancel: true };
        let tee = match &self.stream.tee_check {
            Some(argv) => Some(self.processes.sink(&order(argv)).map_err(io::Error::other)?),
            None => None,
        };
        self.running = Some(self.processes.source(&order(&self.stream.command)).map_err(io::Error::other)?);
        self.tee = tee;
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.running.is_none() {
            self.start()?;
        }
        let Some(running) = &mut self.running else { return Ok(0) };
        let read = running.read(buffer)?;
        let bytes = &buffer[..read];
        self.length += read as u64;
        if let Some(tee) = &mut self.tee {
            tee.write_all(bytes).map_err(|error| io::Error::other(format!("tee_check: {error}")))?;
        }
        if let Some(expected) = &self.stream.expect_tail {
            // Some line ends may follow.
            let keep = expected.len() + 16;
            self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(keep)..]);
            let surplus = self.tail.len().saturating_sub(keep);
            self.tail.drain(..surplus);
        }
        Ok(read)
    }

    /// Whether the stream is what it has to be.
    fn finish(&mut self) -> Result<(), String> {
        let running = self.running.take().ok_or("the command was not started")?;
        running.finish().map_err(|error| error.to_string())?;
        match self.stream.min_bytes {
            Some(least) if self.length < least.bytes() => {
                return Err(format!("it has {}, and min_bytes is {least}", count(self.length, "byte")));
            }
            None if self.length == 0 => {
                return Err("it is empty: if it may be, say min_bytes = \"0\"".into());
            }
            _ => {}
        }
        if let Some(expected) = &self.stream.expect_tail {
            let tail = String::from_utf8_lossy(&self.tail);
            if !tail.trim_end().ends_with(expected.trim_end()) {
                return Err(format!(
                    "it does not end with {expected:?}, as expect_tail says, but with {tail:?}"
                ));
            }
        }
        match self.tee.take() {
            Some(tee) => tee.finish().map_err(|error| format!("tee_check: {error}")),
            None => Ok(()),
        }
    }
}

/// The time limit that was given, or the default, which is one.
pub fn timeout(given: Option<Lapse>, default: &str) -> Duration {
    let lapse = given.or_else(|| default.parse().ok());
    lapse.map_or(Duration::from_secs(600), Lapse::duration)
}
