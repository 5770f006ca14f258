//! Drills in the report: each with its phases as a bar.

use super::html::Html;
use crate::drill::{DrillOutcome, DrillRecord, Phase};

/// Drills that are shown, the last.
const SHOWN_MAX: usize = 20;
const WIDTH: f64 = 320.0;

/// The class of a phase's part of a bar.
fn class(phase: Phase) -> &'static str {
    match phase {
        Phase::Locate => "p-locate",
        Phase::Fetch => "p-fetch",
        Phase::Verify => "p-verify",
        Phase::Load => "p-load",
        Phase::Start => "p-start",
        Phase::Ready => "p-ready",
        Phase::Check => "p-check",
        Phase::Cleanup => "p-cleanup",
    }
}

/// The last drills, the newest first.
pub fn section(page: &mut Html, records: &[DrillRecord]) {
    page.raw("<h2>").text("Drills").raw("</h2>\n");
    if records.is_empty() {
        page.raw("<p class=\"none\">").text("No restore was rehearsed yet.").raw("</p>\n");
        return;
    }
    page.raw("<p class=\"small\">");
    for phase in Phase::ALL {
        page.raw(
            "<svg width=\"12\" height=\"12\" viewBox=\"0 0 12 12\"><rect width=\"12\" height=\"12\" class=\"",
        );
        page.raw(class(phase)).raw("\"/></svg> ").text(phase.name()).raw(" ");
    }
    page.raw("</p>\n<table><thead><tr>");
    for head in ["Began", "Drill", "From", "Outcome", "Took", "Phases", "To say of it"] {
        page.raw("<th>").text(head).raw("</th>");
    }
    page.raw("</tr></thead><tbody>\n");
    let shown = &records[records.len().saturating_sub(SHOWN_MAX)..];
    let longest = shown.iter().map(length).fold(0.0, f64::max);
    for record in shown.iter().rev() {
        row(page, record, longest);
    }
    page.raw("</tbody></table>\n");
}

/// Seconds of all phases.
fn length(record: &DrillRecord) -> f64 {
    record.phases.iter().map(|timed| timed.seconds.max(0.0)).sum()
}

fn row(page: &mut Html, record: &DrillRecord, longest: f64) {
    let (class, outcome) = match (record.outcome, record.self_test) {
        // It had to.
        (DrillOutcome::Fail, true) => ("good", "fail (self-test)"),
        (outcome, true) => ("bad", outcome.name()),
        (DrillOutcome::Pass, false) => ("good", "pass"),
        (DrillOutcome::Fail, false) => ("bad", "fail"),
        (DrillOutcome::Unverified, false) => ("warn", "could not be verified"),
    };
    let rto = record.rto.map_or(String::new(), |rto| format!(" of {rto} s"));
    let from = record.repository.as_ref().map_or("-", |repo| repo.as_str());
    page.raw("<tr><td>").text(&record.began.strftime("%Y-%m-%d %H:%M UTC").to_string());
    page.raw("</td><td>").text(&format!("{} ({})", record.drill, record.tier.name()));
    page.raw("</td><td>").text(from).raw("</td><td class=\"").raw(class).raw("\">").text(outcome);
    page.raw("</td><td>").text(&format!("{:.1} s{rto}", record.seconds())).raw("</td><td>");
    bar(page, record, longest);
    page.raw("</td><td>").text(record.reason.as_deref().unwrap_or_default()).raw("</td></tr>\n");
}

/// The phases, each as wide as it was long; the longest drill that is shown has the whole width.
fn bar(page: &mut Html, record: &DrillRecord, longest: f64) {
    let said = |phase: &str, seconds: f64| format!("{phase} {seconds:.2} s");
    let all: Vec<_> = record.phases.iter().map(|timed| said(timed.phase.name(), timed.seconds)).collect();
    page.raw("<svg width=\"320\" height=\"14\" viewBox=\"0 0 320 14\" role=\"img\" aria-label=\"");
    page.text(&all.join(", ")).raw("\">");
    let mut from = 0.0;
    for timed in record.phases.iter().filter(|_| longest > 0.0) {
        let width = timed.seconds.max(0.0) / longest * WIDTH;
        page.raw("<rect y=\"0\" height=\"14\" x=\"").number(from).raw("\" width=\"").number(width);
        page.raw("\" class=\"").raw(class(timed.phase)).raw("\"><title>");
        page.text(&said(timed.phase.name(), timed.seconds)).raw("</title></rect>");
        from += width;
    }
    page.raw("</svg>");
}
