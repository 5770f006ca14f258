//! The page: everything is in it, and nothing of it is markup that is not this program's.

use std::collections::BTreeMap;

use super::*;
use crate::drill::{DrillOutcome, Phase, Timed};
use crate::plan::load::tests_support::plan;
use crate::testing::NOW;

const HOSTILE: &str = "</td><script>alert(1)</script><img src=x onerror='alert(2)'>\"&\n";

fn drill(outcome: DrillOutcome, phases: &[(Phase, f64)]) -> DrillRecord {
    DrillRecord {
        drill: "d".parse().expect("a name"),
        tier: crate::plan::types::Tier::Full,
        repository: None,
        began: Timestamp::UNIX_EPOCH,
        outcome,
        reason: Some(HOSTILE.into()).filter(|_| outcome == DrillOutcome::Fail),
        self_test: false,
        restored: Vec::new(),
        phases: phases.iter().map(|(phase, seconds)| Timed { phase: *phase, seconds: *seconds }).collect(),
        rto: Some(60),
    }
}

#[test]
fn hostile_names_are_text() {
    let mut plan = plan(
        "[[domain]]\nname = 'x'\npaths = ['/x']\n[[exception]]\nid = 'E'\ncontrol = 'copies'\ndomain = 'x'\nreason = 'r'\n\
         approved_by = 'a'\nexpires = 2026-11-27\n",
    );
    plan.exceptions[0].reason = HOSTILE.into();
    plan.exceptions[0].id = HOSTILE.into();
    plan.sources[0].path = HOSTILE.into();
    let name = || "x".parse::<Name>().expect("a name");
    let now: Zoned = NOW.parse().expect("a time");
    let attempt = Attempt {
        domain: name(),
        began: now.timestamp(),
        ended: None,
        outcome: Outcome::Failed,
        message: Some(HOSTILE.into()),
        at_work_since: None,
        repositories: BTreeMap::new(),
    };
    let compliance = Compliance { findings: Vec::new(), expired: plan.exceptions.clone() };
    let days = (1..=3).map(|day| (jiff::civil::date(2026, 11, day), Day::Missed)).collect();
    let sizes =
        [(0, 100), (3600, 50)].map(|(secs, bytes)| (Timestamp::from_second(secs).expect("a time"), bytes));
    let page = render(&Report {
        plan: &plan,
        host: HOSTILE,
        now: &now,
        domains: &[],
        repositories: &[],
        compliance: &compliance,
        calendars: &[Calendar { domain: name(), days }],
        growth: &[Growth { domain: name(), sizes: sizes.into() }],
        unstable: &[Unstable { domain: name(), repo: name(), path: [HOSTILE.as_bytes(), b"\xff"].concat() }],
        more_unstable: true,
        logs: &[
            LogVerdict { repo: name(), verdict: Ok((7, 0)) },
            LogVerdict { repo: name(), verdict: Err(HOSTILE.into()) },
        ],
        attempts: &[attempt],
        drills: &[
            drill(DrillOutcome::Fail, &[(Phase::Fetch, 30.0), (Phase::Check, 10.0)]),
            drill(DrillOutcome::Pass, &[]),
        ],
    });
    // Every tag is one of this program's own.
    let own = [
        "!DOCTYPE",
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "p",
        "div",
        "span",
        "b",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "figure",
        "figcaption",
        "svg",
        "rect",
        "polyline",
        "circle",
    ];
    for tag in page.split('<').skip(1) {
        let tag = tag.trim_start_matches('/');
        let end = tag.find(|c: char| !c.is_ascii_alphanumeric() && c != '!').unwrap_or(tag.len());
        assert!(own.contains(&&tag[..end]), "<{}", &tag[..tag.len().min(60)]);
    }
    let escaped = "&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=&#39;alert(2)&#39;&gt;&quot;&amp;\\u{a}";
    // The host, the plan, the path, the log, the attempt, the drill, and of the exception its id twice and its reason.
    assert_eq!(page.matches(escaped).count(), 9, "{page}");
    let bars = [
        "x=\"0.0\" width=\"240.0\" class=\"p-fetch\"><title>fetch 30.00 s</title>",
        "x=\"240.0\" width=\"80.0\" class=\"p-check\"><title>check 10.00 s</title>",
    ];
    assert!(bars.iter().all(|bar| page.contains(bar)), "{page}");
    assert!(page.contains("points=\"6.0,6.0 314.0,45.0 \""), "{page}");
    assert!(
        page.contains("missed at the end of 3 of 3 days") && page.matches("class=\"missed\"").count() == 3
    );
    for said in [
        "7 entries, all signed",
        "There are more.",
        "expired on 2026-11-27",
        "The plan demands no verification.",
    ] {
        assert!(page.contains(said), "{said}\n{page}");
    }
}

#[test]
fn sizes_are_for_people() {
    assert_eq!([0, 1023, 1536, 5 << 40].map(size), ["0 B", "1023 B", "1.5 KiB", "5.0 TiB"]);
}
