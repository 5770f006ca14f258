//! Everything the command says: results on standard output, messages for people on standard error, and, with
//! `--json`, all of it as JSON lines on standard output (see `docs/json.md`).

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::exit::Exit;
use crate::failure::Failure;

/// Version of the JSON output.
pub const SCHEMA: u64 = 1;

/// A JSON object in the making.
pub type Object = Map<String, Value>;

/// Where results and messages go.
#[derive(Debug)]
pub struct Output {
    json: bool,
    quiet: bool,
    verbose: u8,
    terminal: bool,
    /// The result is one array, and nothing else goes where it goes.
    is_array: bool,
    out: Mutex<BufWriter<File>>,
    /// The line that is to be the last one.
    summary: Mutex<Option<String>>,
}

impl Output {
    /// Output to the standard streams. `is_array` says whether the command has one array to write, where it writes JSON.
    ///
    /// # Errors
    /// Where standard output is closed.
    pub fn new(json: bool, quiet: bool, verbose: u8, is_array: bool) -> io::Result<Self> {
        // A handle of our own: the library's standard output writes line by line, which costs a call per entry of
        // a listing. No command that is started inherits it: one that goes on running would hold whoever reads this.
        let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let terminal = out.is_terminal();
        let out = Mutex::new(BufWriter::with_capacity(1 << 16, out));
        Ok(Self { json, quiet, verbose, terminal, is_array, out, summary: Mutex::default() })
    }

    /// Whether JSON is wanted.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether only errors are wanted.
    pub fn quiet(&self) -> bool {
        self.quiet
    }

    /// How often `-v` was given.
    pub fn verbose(&self) -> u8 {
        self.verbose
    }

    /// Writes one line of a result.
    ///
    /// # Errors
    /// [`Failure`]; a reader that went away ends the command without a message.
    pub fn line(&self, line: impl AsRef<[u8]>) -> Result<(), Failure> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let written = out.write_all(line.as_ref()).and_then(|()| out.write_all(b"\n"));
        let written = if self.terminal { written.and_then(|()| out.flush()) } else { written };
        written.map_err(|error| output_failure(&error))
    }

    /// Writes one JSON object as a line, with the schema number first. A summary is kept for the end: warnings may come after it, of
    /// what could not be written down.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn object(&self, object: Object) -> Result<(), Failure> {
        self.write_summary()?;
        let is_summary = object.get("type").is_some_and(|kind| kind == "summary");
        let line = with_schema(object).to_string();
        if is_summary {
            *self.summary.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
            return Ok(());
        }
        self.line(line)
    }

    fn write_summary(&self) -> Result<(), Failure> {
        let summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner).take();
        summary.map_or(Ok(()), |summary| self.line(summary))
    }

    /// Writes what was kept for the end, and what is buffered.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn finish(&self) -> Result<(), Failure> {
        self.write_summary()?;
        self.flush()
    }

    /// Writes a JSON object at once, for those who follow a running command. Its reader may have gone away: the
    /// command goes on.
    pub fn message(&self, object: Object) {
        let _ = self.object(object).and_then(|()| self.flush());
    }

    /// Writes text of a result unless it is to be quiet. Its reader may have gone away: what is reported is done.
    pub fn text(&self, text: impl AsRef<str>) {
        if !self.quiet && !self.json {
            let _ = self.line(text.as_ref());
        }
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn flush(&self) -> Result<(), Failure> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.flush().map_err(|error| output_failure(&error))
    }

    /// A name or path as it is written as text: its bytes as they are, but on a terminal with control characters
    /// made visible.
    pub fn name(&self, bytes: &[u8]) -> Vec<u8> {
        if self.terminal { visible(bytes).into_bytes() } else { bytes.to_vec() }
    }

    /// Reports why the command failed.
    pub fn failure(&self, failure: &Failure) {
        if failure.code == BROKEN_PIPE {
            return;
        }
        if self.json {
            return self.message(failure_object(failure));
        }
        let _ = self.flush();
        report_text(failure);
    }

    /// Reports what failed in a part of the command, which goes on.
    pub fn part_failed(&self, failure: &Failure) {
        if self.json {
            let mut line = failure_object(failure);
            line.remove("exit_code");
            return self.message(line);
        }
        let _ = self.flush();
        report_text(failure);
    }

    /// Warns, whatever becomes of the results: people on standard error, programs by a line of their own, unless all that they read
    /// is one array.
    pub fn warn(&self, text: &str) {
        if !self.quiet {
            self.alert(text);
        }
    }

    /// The same of what makes a command end with another exit code than 0: also where it is to be quiet, as a timer that tells of
    /// errors only would not know why.
    pub fn alert(&self, text: &str) {
        if self.json && !self.is_array {
            let message = text.strip_prefix("warning: ").unwrap_or(text);
            let line = with_schema(object(json!({"type": "warning", "code": "general", "message": message})));
            // Not as an object: a summary stays behind it.
            let _ = self.line(line.to_string()).and_then(|()| self.flush());
            return;
        }
        let _ = writeln!(io::stderr(), "{}", visible(text.as_bytes()));
    }

    /// Says something for people that is no result.
    pub fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }
}

/// Code of the failure that stands for a reader that went away.
const BROKEN_PIPE: &str = "broken-pipe";

fn output_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::new(BROKEN_PIPE, error).exit(Exit::Ok);
    }
    Failure::io("cannot write the output", error)
}

/// Writes a failure as text on standard error.
pub fn report_text(failure: &Failure) {
    let mut err = io::stderr().lock();
    let _ = writeln!(err, "strongroom: {}", failure.message);
    if let Some(hint) = &failure.hint {
        let _ = writeln!(err, "hint: {hint}");
    }
}

/// A failure as the last line of JSON output.
pub fn failure_object(failure: &Failure) -> Object {
    let mut line = object(json!({
        "type": "error",
        "code": failure.code,
        "message": failure.message,
        "exit_code": failure.exit as u8,
    }));
    if let Some(hint) = &failure.hint {
        line.insert("hint".into(), json!(hint));
    }
    if let Some(details) = &failure.details {
        line.extend((**details).clone());
    }
    line
}

/// The object with the schema number in front.
pub fn with_schema(object: Object) -> Value {
    let mut line = Map::new();
    line.insert("schema".into(), json!(SCHEMA));
    line.extend(object);
    Value::Object(line)
}

/// The object that `json!` made.
///
/// # Panics
/// Where it made something else: a mistake in the program text.
pub fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        other => unreachable!("json!({{…}}) makes an object, not {other}"),
    }
}

/// Puts bytes into an object: as text, and where they are not UTF-8 also exactly, as `KEY_b64`.
pub fn insert_bytes(object: &mut Object, key: &str, bytes: &[u8]) {
    object.insert(key.into(), json!(String::from_utf8_lossy(bytes)));
    if std::str::from_utf8(bytes).is_err() {
        object.insert(format!("{key}_b64"), json!(STANDARD.encode(bytes)));
    }
}

/// Bytes as text in which control characters cannot act on a terminal.
pub fn visible(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if !text.contains(char::is_control) {
        return text.into_owned();
    }
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(visible(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(visible("smörgås\\n".as_bytes()), "smörgås\\n");
    }

    #[test]
    fn bytes_that_are_no_text_are_kept_beside_it() {
        let mut line = Object::new();
        insert_bytes(&mut line, "path", b"/ok");
        insert_bytes(&mut line, "name", b"\xff");
        assert_eq!(Value::Object(line), json!({"path": "/ok", "name": "\u{fffd}", "name_b64": "/w=="}));
    }
}
