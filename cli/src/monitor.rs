//! Drawing what an operation reports: a progress bar, lines of text, or JSON lines.

use std::collections::HashSet;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use strongroom::monitor::{EntryAction, Monitor, Problem, Progress};

use crate::output::{self, Output, insert_bytes, object};

/// Time between two drawings of the bar.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// Time between two JSON progress lines.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// What matters comes first: in 80 columns there is not always room for the bar.
const KNOWN: &str = "{percent:>3}%  {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left  \
                     {msg}  {wide_bar}";
const UNKNOWN: &str = "[{elapsed_precise}] {spinner} {binary_bytes}  {binary_bytes_per_sec}  {msg}";

/// Listens to an operation for a [`Output`].
#[derive(Debug)]
pub struct CliMonitor<'a> {
    output: &'a Output,
    noun: &'static str,
    bar: Option<ProgressBar>,
    started: Instant,
    /// Milliseconds after `started` of the next drawing or report.
    next: AtomicU64,
    known: AtomicBool,
    cancelled: Arc<AtomicBool>,
    silent_on_problems: bool,
    /// What was told before, if anything.
    told: Option<&'static str>,
    actions: HashSet<&'static str>,
}

impl<'a> CliMonitor<'a> {
    /// A monitor that counts `noun` (files, packs) and says that the operation is cancelled once `cancelled` is set.
    pub fn new(output: &'a Output, noun: &'static str, cancelled: Arc<AtomicBool>) -> Self {
        let draws = !output.quiet() && !output.json() && io::stderr().is_terminal();
        let bar = draws.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style(UNKNOWN));
            bar
        });
        Self {
            output,
            noun,
            bar,
            started: Instant::now(),
            next: AtomicU64::new(0),
            known: AtomicBool::new(false),
            cancelled,
            silent_on_problems: false,
            told: None,
            actions: shown(output.verbose()),
        }
    }

    /// The same, but without a word about problems: for operations whose report holds them all.
    #[must_use]
    pub fn without_problems(mut self) -> Self {
        self.silent_on_problems = true;
        self
    }

    /// The same, but without a word about problems of this code: they were told before.
    #[must_use]
    pub fn without(mut self, code: &'static str) -> Self {
        self.told = Some(code);
        self
    }

    /// Takes the bar off the screen and returns the time since the beginning.
    pub fn finish(&self) -> Duration {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.started.elapsed()
    }

    /// Whether it is time to draw or report; of several threads at most one is told so.
    fn is_due(&self) -> bool {
        let every = if self.output.json() { REPORT_EVERY } else { DRAW_EVERY };
        let now = millis(self.started.elapsed());
        let next = self.next.load(Ordering::Relaxed);
        now >= next
            && self
                .next
                .compare_exchange(next, now + millis(every), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    fn draw(&self, bar: &ProgressBar, progress: &Progress) {
        if let Some(total) = progress.bytes_total {
            bar.set_length(total);
            if !self.known.swap(true, Ordering::Relaxed) {
                bar.set_style(style(KNOWN));
            }
        }
        let of = progress.items_total.map_or(String::new(), |total| format!(" of {total}"));
        let problems = match progress.problems {
            0 => String::new(),
            problems => format!(", {problems} problems"),
        };
        bar.set_message(format!("{}{of} {}{problems}", progress.items, self.noun));
        bar.set_position(progress.bytes);
    }

    fn report(&self, progress: &Progress) {
        let mut line = object(json!({
            "type": "progress",
            "seconds_elapsed": self.started.elapsed().as_secs(),
            "bytes_done": progress.bytes,
            "error_count": progress.problems,
        }));
        line.insert(format!("{}_done", self.noun), json!(progress.items));
        if let Some(total) = progress.items_total {
            line.insert(format!("total_{}", self.noun), json!(total));
        }
        if let Some(total) = progress.bytes_total {
            line.insert("total_bytes".into(), json!(total));
            let done = if total == 0 { 1.0 } else { progress.bytes as f64 / total as f64 };
            line.insert("percent_done".into(), json!(done.min(1.0)));
        }
        self.output.message(line);
    }

    /// Does something to the screen with the bar out of the way.
    fn beside_bar(&self, act: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(act),
            None => act(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are valid").progress_chars("=> ")
}

/// What is done with an entry, in a word.
fn action_name(action: EntryAction) -> &'static str {
    match action {
        EntryAction::New => "new",
        EntryAction::Changed => "changed",
        EntryAction::Unmodified => "unmodified",
        EntryAction::Excluded => "excluded",
        EntryAction::Restored => "restored",
        EntryAction::Skipped => "skipped",
        EntryAction::Deleted => "deleted",
    }
}

/// Which actions are shown with `-v` given so many times.
fn shown(verbose: u8) -> HashSet<&'static str> {
    let once = [EntryAction::New, EntryAction::Changed, EntryAction::Restored, EntryAction::Deleted];
    let twice = [EntryAction::Unmodified, EntryAction::Excluded, EntryAction::Skipped];
    let once = once.into_iter().filter(|_| verbose >= 1);
    once.chain(twice.into_iter().filter(|_| verbose >= 2)).map(action_name).collect()
}

impl Monitor for CliMonitor<'_> {
    fn progress(&self, progress: &Progress) {
        if (self.bar.is_none() && !self.output.json()) || self.output.quiet() || !self.is_due() {
            return;
        }
        match &self.bar {
            Some(bar) => self.draw(bar, progress),
            None => self.report(progress),
        }
    }

    fn wants_totals(&self) -> bool {
        self.bar.is_some()
    }

    fn problem(&self, problem: &Problem) {
        let is_told = self.silent_on_problems || self.told == Some(problem.code);
        if is_told || (self.output.quiet() && !problem.is_error) {
            return;
        }
        let kind = if problem.is_error { "error" } else { "warning" };
        if self.output.json() {
            let mut line = object(json!({"type": kind, "code": problem.code, "message": problem.message}));
            if let Some(path) = &problem.path {
                insert_bytes(&mut line, "path", path);
            }
            return self.output.message(line);
        }
        let path = problem.path.as_deref().map_or(String::new(), output::visible);
        let text = if path.is_empty() || problem.message.contains(&path) {
            format!("{kind}: {}", problem.message)
        } else {
            format!("{kind}: {path}: {}", problem.message)
        };
        self.beside_bar(|| {
            let _ = writeln!(io::stderr(), "{}", output::visible(text.as_bytes()));
        });
    }

    fn entry(&self, path: &[u8], action: EntryAction) {
        let action = action_name(action);
        if !self.actions.contains(action) {
            return;
        }
        if self.output.json() {
            let mut line = object(json!({"type": "verbose_status", "action": action}));
            insert_bytes(&mut line, "item", path);
            return self.output.message(line);
        }
        let mut line = format!("{action:<10} ").into_bytes();
        line.extend(self.output.name(path));
        self.beside_bar(|| {
            let _ = self.output.line(line);
        });
    }

    fn wants_entries(&self) -> bool {
        !self.actions.is_empty()
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
