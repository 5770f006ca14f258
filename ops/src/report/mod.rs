//! The report: one page that says how everything stands, for people who do not use a terminal. It is one file without a
//! script and without anything that would have to be loaded, and every value in it is escaped.
//!
//! - [`history`]: what was, day by day
//! - `growth`: how domains grew
//! - `drills`: rehearsed restores
//! - `html`: writing HTML

mod drills;
mod growth;
pub mod history;
mod html;
#[cfg(test)]
mod tests;

use jiff::{Timestamp, Zoned};

use crate::compliance::{Compliance, Standing};
use crate::drill::DrillRecord;
use crate::plan::Plan;
use crate::plan::values::{Lapse, Name};
use crate::run::state::{Attempt, Outcome};
use crate::status::{DomainStatus, Health, rough};
use crate::verify::RepoStatus;
use crate::words::{count, verb};
use history::{Calendar, Day, Growth};
use html::{Cell, Html};

/// Attempts that are shown, the last.
const ATTEMPTS_MAX: usize = 30;

/// A file that changed while it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unstable {
    /// The domain.
    pub domain: Name,
    /// The repository.
    pub repo: Name,
    /// The path in the snapshot.
    pub path: Vec<u8>,
}

/// What the log of a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogVerdict {
    /// The repository.
    pub repo: Name,
    /// Entries that count, and those that do not; or why it could not be read.
    pub verdict: Result<(u64, u64), String>,
}

/// Everything that is reported.
pub struct Report<'r> {
    /// The plan.
    pub plan: &'r Plan,
    /// The host.
    pub host: &'r str,
    /// When it was written.
    pub now: &'r Zoned,
    /// How fresh domains are.
    pub domains: &'r [DomainStatus],
    /// How well repositories are verified.
    pub repositories: &'r [RepoStatus],
    /// How targets stand.
    pub compliance: &'r Compliance,
    /// The last days.
    pub calendars: &'r [Calendar],
    /// How domains grew.
    pub growth: &'r [Growth],
    /// Files of the newest snapshots that changed while they were read.
    pub unstable: &'r [Unstable],
    /// Whether there are more of them.
    pub more_unstable: bool,
    /// The logs.
    pub logs: &'r [LogVerdict],
    /// What was done on this host.
    pub attempts: &'r [Attempt],
    /// Restores that were rehearsed on this host.
    pub drills: &'r [DrillRecord],
}

const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Strongroom report</title>\n<style>\n\
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em;color:#1c2430;background:#fff}\n\
h1{font-size:1.5em;margin-bottom:.2em}h2{font-size:1.15em;margin-top:2em;border-bottom:1px solid #d5dae1;padding-bottom:.2em}\n\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3em .7em .3em 0;border-bottom:1px solid #e8ebef;vertical-align:top;overflow-wrap:anywhere}\n\
th,td.good,td.warn,td.bad,td.id{overflow-wrap:break-word}th,td.id{white-space:nowrap}\n\
th{font-weight:600;color:#566070}.good{color:#17703a}.warn{color:#8a5a00}.bad{color:#b3261e;font-weight:600}.none,.small{color:#566070}\n\
.mono,.id{font-family:ui-monospace,monospace;font-size:.9em}.sum{display:inline-block;margin:.5em 1.5em .5em 0}.sum b{font-size:1.6em;display:block}\n\
.days{display:flex;gap:2px;flex-wrap:wrap;margin:.3em 0 1em}.days span{width:16px;height:16px;border-radius:3px;background:#e3e7ec}\n\
.days .met{background:#2e9e5b}.days .missed{background:#d1382c}\n\
.charts{display:flex;flex-wrap:wrap;gap:1.5em}.charts figure{margin:0}.charts figcaption{font-size:.9em}\n\
svg{background:#f6f8fa;border-radius:4px}polyline{fill:none;stroke:#2563a8;stroke-width:2}circle{fill:#2563a8}\n\
.p-locate{fill:#8a94a6}.p-fetch{fill:#2563a8}.p-verify{fill:#5b9bd5}.p-load{fill:#7a4fb5}.p-start{fill:#b57f1e}.p-ready{fill:#e0b04c}\n\
.p-check{fill:#2e9e5b}.p-cleanup{fill:#c3cad4}\n\
@media print{body{margin:0}}\n</style></head><body>\n";

/// Writes the report.
pub fn render(report: &Report<'_>) -> String {
    let mut page = Html::default();
    page.raw(HEAD).raw("<h1>").text("Backups of ").text(report.host).raw("</h1>\n<p class=\"small\">");
    page.text(&format!("Written {} by ", report.now.strftime("%Y-%m-%d %H:%M %Z")));
    page.text("strongroom report, from the plan ")
        .text(&report.plan.sources[0].path.to_string_lossy())
        .raw("</p>\n");
    summary(&mut page, report);
    compliance(&mut page, report.compliance);
    domains(&mut page, report);
    calendars(&mut page, report.calendars);
    growth::section(&mut page, report.growth);
    verification(&mut page, report);
    drills::section(&mut page, report.drills);
    unstable(&mut page, report);
    exceptions(&mut page, report);
    logs(&mut page, report.logs);
    attempts(&mut page, report.attempts);
    page.raw("</body></html>\n");
    page.finish()
}

fn summary(page: &mut Html, report: &Report<'_>) {
    let worst = report.domains.iter().map(|domain| domain.health).max().unwrap_or(Health::Critical);
    let count = |standing| report.compliance.count(standing).to_string();
    page.raw("<div>");
    for (class, number, what) in [
        (health_class(worst), worst.name().to_owned(), "the worst domain"),
        ("good", count(Standing::Met), "targets met"),
        ("warn", count(Standing::Excused), "excused"),
        ("warn", count(Standing::Unknown), "unknown"),
        ("bad", count(Standing::Violated), "violated"),
    ] {
        let class = if number == "0" { "small" } else { class };
        page.raw("<span class=\"sum\"><b class=\"")
            .raw(class)
            .raw("\">")
            .text(&number)
            .raw("</b>")
            .text(what)
            .raw("</span>");
    }
    page.raw("</div>\n");
}

fn health_class(health: Health) -> &'static str {
    match health {
        Health::Ok => "good",
        Health::Warning | Health::Unknown => "warn",
        Health::Critical => "bad",
    }
}

fn compliance(page: &mut Html, compliance: &Compliance) {
    page.raw("<h2>").text("Targets").raw("</h2>\n");
    let mut rows: Vec<_> = compliance
        .findings
        .iter()
        .map(|finding| {
            let class = match finding.standing {
                Standing::Met => "good",
                Standing::Excused | Standing::Unknown => "warn",
                Standing::Violated => "bad",
            };
            let excuse = finding.exception.as_ref().map_or(String::new(), |id| format!(" ({id})"));
            vec![
                Cell::text(finding.domain.as_str()),
                Cell::text(finding.control.name()),
                Cell::class(class, format!("{}{excuse}", finding.standing.name())),
                Cell::text(finding.wanted.as_str()),
                Cell::text(finding.found.as_str()),
            ]
        })
        .collect();
    rows.extend(compliance.expired.iter().map(|exception| {
        vec![
            Cell::text(exception.domain.as_str()),
            Cell::text(exception.control.name()),
            Cell::class("bad", "violated"),
            Cell::text(format!("the exception {} to hold", exception.id)),
            Cell::text(format!("expired on {}", exception.expires)),
        ]
    }));
    page.table(&["Domain", "Target", "Standing", "Wanted", "Found"], &rows, "The plan sets no targets.");
}

fn domains(page: &mut Html, report: &Report<'_>) {
    page.raw("<h2>").text("Newest snapshots").raw("</h2>\n");
    let now = report.now.timestamp();
    let copies =
        report.domains.iter().flat_map(|domain| domain.copies.iter().map(move |copy| (domain, copy)));
    let rows: Vec<_> = copies
        .map(|(domain, copy)| {
            let newest = copy.newest.as_ref();
            let reasons: Vec<_> = copy.reasons.iter().chain(&domain.reasons).map(String::as_str).collect();
            vec![
                Cell::text(domain.domain.as_str()),
                Cell::text(copy.repo.as_str()),
                Cell::class(health_class(copy.health), copy.health.name()),
                Cell::text(newest.map_or("-".to_owned(), |newest| ago(newest.time, now))),
                Cell::text(newest.map_or("-".to_owned(), |newest| newest.files.to_string())),
                Cell::text(newest.map_or("-".to_owned(), |newest| size(newest.bytes))),
                Cell::class("id", newest.map_or("-".to_owned(), |newest| newest.id.short())),
                Cell::text(reasons.join("; ")),
            ]
        })
        .collect();
    let heads = ["Domain", "Repository", "Health", "Made", "Files", "Size", "Snapshot", "To say of it"];
    page.table(&heads, &rows, "The plan has no domains.");
}

fn ago(time: Timestamp, now: Timestamp) -> String {
    let secs = u64::try_from(now.duration_since(time).as_secs()).unwrap_or(0);
    format!("{} ago", rough(Lapse::seconds(secs)))
}

fn size(bytes: u64) -> String {
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, factor)| bytes >= *factor) {
        Some((unit, factor)) => format!("{:.1} {unit}", bytes as f64 / *factor as f64),
        None => format!("{bytes} B"),
    }
}

fn calendars(page: &mut Html, calendars: &[Calendar]) {
    page.raw("<h2>").text("Recovery points, day by day").raw("</h2>\n");
    if calendars.is_empty() {
        page.raw("<p class=\"none\">").text("No domain has a recovery point objective.").raw("</p>\n");
    }
    if !calendars.is_empty() {
        page.raw("<p class=\"small\">")
            .text("Green: met. Red: missed. Grey: nothing is known. The last one is today.")
            .raw("</p>\n");
    }
    for calendar in calendars {
        let missed = calendar.days.iter().filter(|(_, day)| *day == Day::Missed).count();
        page.raw("<div>").text(calendar.domain.as_str());
        let known = calendar.days.iter().filter(|(_, day)| *day != Day::Unknown).count();
        page.text(&format!(": missed at the end of {missed} of {}", count(known, "day")));
        page.raw("</div><div class=\"days\">");
        for (date, day) in &calendar.days {
            let (class, word) = match day {
                Day::Met => ("met", "met"),
                Day::Missed => ("missed", "missed"),
                Day::Unknown => ("", "nothing is known"),
            };
            page.raw("<span class=\"")
                .raw(class)
                .raw("\" title=\"")
                .text(&format!("{date}: {word}"))
                .raw("\"></span>");
        }
        page.raw("</div>\n");
    }
}

fn verification(page: &mut Html, report: &Report<'_>) {
    page.raw("<h2>").text("Verification").raw("</h2>\n");
    let now = report.now.timestamp();
    let rows: Vec<_> = report
        .repositories
        .iter()
        .map(|repo| {
            let known = repo.known.clone().unwrap_or_default();
            vec![
                Cell::text(repo.repo.as_str()),
                Cell::class(health_class(repo.health), repo.health.name()),
                Cell::text(format!("{} every {}", repo.demand.read, repo.demand.every)),
                Cell::text(known.last_read.map_or("never".to_owned(), |time| ago(time, now))),
                Cell::text(format!("{} of {}", known.packs_never_read, known.packs)),
                Cell::text(repo.reasons.join("; ")),
            ]
        })
        .collect();
    let heads = ["Repository", "Health", "Wanted", "Last read", "Packs never read", "To say of it"];
    page.table(&heads, &rows, "The plan demands no verification.");
}

fn unstable(page: &mut Html, report: &Report<'_>) {
    page.raw("<h2>").text("Files that changed while they were read").raw("</h2>\n");
    let rows: Vec<_> = report
        .unstable
        .iter()
        .map(|file| {
            vec![
                Cell::text(file.domain.as_str()),
                Cell::text(file.repo.as_str()),
                Cell::class("mono", String::from_utf8_lossy(&file.path)),
            ]
        })
        .collect();
    page.table(&["Domain", "Repository", "Path"], &rows, "There are none in the newest snapshots.");
    if report.more_unstable {
        page.raw("<p>").text("There are more.").raw("</p>\n");
    }
}

fn exceptions(page: &mut Html, report: &Report<'_>) {
    page.raw("<h2>").text("Exceptions").raw("</h2>\n");
    let today = report.now.date();
    let rows: Vec<_> = report
        .plan
        .exceptions
        .iter()
        .map(|exception| {
            let class = if exception.expires < today { "bad" } else { "" };
            vec![
                Cell::text(exception.id.as_str()),
                Cell::text(exception.domain.as_str()),
                Cell::text(exception.control.name()),
                Cell::text(exception.reason.as_str()),
                Cell::text(exception.approved_by.as_str()),
                Cell::class(class, exception.expires.to_string()),
            ]
        })
        .collect();
    let heads = ["Id", "Domain", "Target", "Reason", "Approved by", "Expires"];
    page.table(&heads, &rows, "There are none.");
}

fn logs(page: &mut Html, logs: &[LogVerdict]) {
    page.raw("<h2>").text("Commit logs").raw("</h2>\n");
    let rows: Vec<_> = logs
        .iter()
        .map(|log| {
            let (class, text) = match &log.verdict {
                Ok((entries, 0)) => {
                    ("good", format!("{}, all signed and in one chain", count(*entries, "entry")))
                }
                Ok((entries, void)) => {
                    let (entries, do_not) = (count(*entries, "entry"), verb(*void, "does", "do"));
                    ("warn", format!("{entries} in one chain; {void} more {do_not} not count"))
                }
                Err(reason) => ("bad", reason.clone()),
            };
            vec![Cell::text(log.repo.as_str()), Cell::class(class, text)]
        })
        .collect();
    page.table(&["Repository", "Verdict"], &rows, "There is no repository.");
}

fn attempts(page: &mut Html, attempts: &[Attempt]) {
    page.raw("<h2>").text("Last runs on this host").raw("</h2>\n");
    let last = &attempts[attempts.len().saturating_sub(ATTEMPTS_MAX)..];
    let rows: Vec<_> = last
        .iter()
        .rev()
        .map(|attempt| {
            let class = match attempt.outcome {
                Outcome::Ok => "good",
                Outcome::Partial | Outcome::Skipped | Outcome::Deferred => "warn",
                Outcome::Interrupted | Outcome::Failed => "bad",
            };
            let took = attempt.ended.map(|ended| ended.duration_since(attempt.began).as_secs());
            vec![
                Cell::text(attempt.began.strftime("%Y-%m-%d %H:%M UTC").to_string()),
                Cell::text(attempt.domain.as_str()),
                Cell::class(class, attempt.outcome.name()),
                Cell::text(took.map_or("-".to_owned(), |secs| format!("{secs} s"))),
                Cell::text(attempt.message.as_deref().unwrap_or_default()),
            ]
        })
        .collect();
    page.table(&["Began", "Domain", "Outcome", "Took", "To say of it"], &rows, "Nothing was run here yet.");
}
