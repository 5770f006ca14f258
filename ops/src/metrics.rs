//! The status as OpenMetrics text, for the file collector of a monitoring system.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::compliance::{Compliance, Standing};
use crate::drill::{DrillOutcome, DrillRecord, history};
use crate::plan::Plan;
use crate::run::state::Outcome;
use crate::status::DomainStatus;
use crate::verify::RepoStatus;

/// What there are numbers of.
pub struct Numbers<'n> {
    /// The plan.
    pub plan: &'n Plan,
    /// How well domains are protected.
    pub domains: &'n [DomainStatus],
    /// How well repositories are verified.
    pub repositories: &'n [RepoStatus],
    /// Drills.
    pub drills: &'n [DrillRecord],
    /// How targets stand.
    pub compliance: &'n Compliance,
}

/// All numbers.
pub fn render(numbers: &Numbers<'_>) -> String {
    let status = numbers.domains;
    let mut text = Text::default();
    let copies = || status.iter().flat_map(|domain| domain.copies.iter().map(move |copy| (domain, copy)));
    text.family("strongroom_health", "gauge", "0 ok, 1 warning, 2 critical, 3 unknown.");
    for domain in status {
        text.value("strongroom_health", &[("domain", domain.domain.as_str())], domain.health.nagios());
    }
    text.family("strongroom_copy_health", "gauge", "The same of one repository.");
    for (domain, copy) in copies() {
        text.value("strongroom_copy_health", &labels(domain, copy.repo.as_str()), copy.health.nagios());
    }
    text.family(
        "strongroom_snapshot_timestamp_seconds",
        "gauge",
        "When the newest complete snapshot was begun.",
    );
    for (domain, copy) in copies() {
        if let Some(newest) = &copy.newest {
            let labels = labels(domain, copy.repo.as_str());
            text.value("strongroom_snapshot_timestamp_seconds", &labels, newest.time.as_second());
        }
    }
    text.family("strongroom_snapshot_bytes", "gauge", "Bytes of all files in it.");
    for (domain, copy) in copies() {
        if let Some(newest) = &copy.newest {
            text.value("strongroom_snapshot_bytes", &labels(domain, copy.repo.as_str()), newest.bytes);
        }
    }
    text.family("strongroom_rpo_seconds", "gauge", "Oldest that the newest complete snapshot may be.");
    for domain in status {
        if let Some(rpo) = domain.rpo {
            text.value("strongroom_rpo_seconds", &[("domain", domain.domain.as_str())], rpo.as_secs());
        }
    }
    text.family(
        "strongroom_attempt_timestamp_seconds",
        "gauge",
        "When the last attempt on this host was begun.",
    );
    for domain in status {
        if let Some(attempt) = &domain.attempt {
            let labels = [("domain", domain.domain.as_str())];
            text.value("strongroom_attempt_timestamp_seconds", &labels, attempt.began.as_second());
        }
    }
    text.family(
        "strongroom_attempt_success",
        "gauge",
        "1 if there is nothing to object to in the last attempt.",
    );
    for domain in status {
        if let Some(attempt) = &domain.attempt {
            let is_good = u8::from(attempt.outcome == Outcome::Ok);
            text.value("strongroom_attempt_success", &[("domain", domain.domain.as_str())], is_good);
        }
    }
    of_repositories(&mut text, numbers.repositories);
    of_recoveries(&mut text, numbers);
    of_targets(&mut text, numbers.compliance);
    text.0.push_str("# EOF\n");
    text.0
}

fn of_repositories(text: &mut Text, verified: &[RepoStatus]) {
    text.family(
        "strongroom_verify_health",
        "gauge",
        "How well verification goes: 0 ok, 1 warning, 2 critical, 3 unknown.",
    );
    for repo in verified {
        text.value("strongroom_verify_health", &[("repository", repo.repo.as_str())], repo.health.nagios());
    }
    let known = || verified.iter().filter_map(|repo| Some((repo.repo.as_str(), repo.known.as_ref()?)));
    text.family("strongroom_verify_timestamp_seconds", "gauge", "When a pack was last read in whole.");
    for (repo, known) in known() {
        if let Some(last) = known.last_read {
            text.value("strongroom_verify_timestamp_seconds", &[("repository", repo)], last.as_second());
        }
    }
    text.family("strongroom_packs_never_verified", "gauge", "Packs that were never read in whole.");
    for (repo, known) in known() {
        text.value("strongroom_packs_never_verified", &[("repository", repo)], known.packs_never_read);
    }
    text.family("strongroom_packs_in_doubt", "gauge", "Packs that were found damaged, and not intact since.");
    for (repo, known) in known() {
        text.value("strongroom_packs_in_doubt", &[("repository", repo)], known.packs_in_doubt);
    }
}

fn of_recoveries(text: &mut Text, numbers: &Numbers<'_>) {
    let drills = || {
        let latest = history::latest(numbers.plan, numbers.drills).into_iter();
        latest.filter_map(|drill| {
            let repo = drill.repository.as_ref()?;
            Some(([("drill", drill.drill.as_str()), ("repository", repo.as_str())], drill))
        })
    };
    text.family(
        "strongroom_drill_outcome",
        "gauge",
        "How the last try of a drill from a repository ended: 0 passed, 1 could not be verified, 2 failed.",
    );
    for (labels, drill) in drills() {
        let outcome = match drill.outcome {
            DrillOutcome::Pass => 0,
            DrillOutcome::Unverified => 1,
            DrillOutcome::Fail => 2,
        };
        text.value("strongroom_drill_outcome", &labels, outcome);
    }
    text.family("strongroom_drill_timestamp_seconds", "gauge", "When it was begun.");
    for (labels, drill) in drills() {
        text.value("strongroom_drill_timestamp_seconds", &labels, drill.began.as_second());
    }
    text.family("strongroom_drill_seconds", "gauge", "How long it took, but for the cleanup.");
    for (labels, drill) in drills() {
        text.value("strongroom_drill_seconds", &labels, drill.seconds());
    }
    text.family(
        "strongroom_recovery_seconds",
        "gauge",
        "How long the last recovery took, or the last drill that restored everything, whichever is newer.",
    );
    for domain in numbers.domains {
        if let Some(seconds) = domain.recovery_seconds {
            text.value("strongroom_recovery_seconds", &[("domain", domain.domain.as_str())], seconds);
        }
    }
    text.family("strongroom_rto_seconds", "gauge", "Longest that it may take.");
    for domain in &numbers.plan.domains {
        if let Some(rto) = numbers.plan.objectives(domain).rto {
            text.value("strongroom_rto_seconds", &[("domain", domain.name.as_str())], rto.as_secs());
        }
    }
}

fn of_targets(text: &mut Text, compliance: &Compliance) {
    text.family(
        "strongroom_target",
        "gauge",
        "How a target of a domain stands: 0 met, 1 excused, 2 violated, 3 unknown.",
    );
    for finding in &compliance.findings {
        let standing = match finding.standing {
            Standing::Met => 0,
            Standing::Excused => 1,
            Standing::Violated => 2,
            Standing::Unknown => 3,
        };
        let labels = [("domain", finding.domain.as_str()), ("target", finding.control.name())];
        text.value("strongroom_target", &labels, standing);
    }
    text.family("strongroom_exceptions_expired", "gauge", "Exceptions that do not hold any more.");
    text.value("strongroom_exceptions_expired", &[], compliance.expired.len());
}

fn labels<'a>(domain: &'a DomainStatus, repo: &'a str) -> [(&'static str, &'a str); 2] {
    [("domain", domain.domain.as_str()), ("repository", repo)]
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# TYPE {name} {kind}\n# HELP {name} {help}");
    }

    /// Names of domains and repositories need no escapes.
    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

/// Puts the file in its place in one go, readable by everybody: whoever collects it runs as somebody else.
///
/// # Errors
/// Where it cannot be written.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".strongroom").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compliance::Finding;
    use crate::drill::{Phase, Timed};
    use crate::plan::load::tests_support::plan;
    use crate::plan::types::{Control, Tier};
    use crate::status::{CopyStatus, Health, NewestCopy};
    use crate::testing::name;
    use crate::verify::{Demand, Known};
    use jiff::Timestamp;
    use strongroom::ids::{BlobId, SnapshotId};

    #[test]
    fn numbers_have_names_and_the_end_is_marked() {
        let status = DomainStatus {
            domain: "shop".parse().expect("a name"),
            class: None,
            owner: None,
            health: Health::Critical,
            reasons: Vec::new(),
            rpo: "24h".parse().ok(),
            copies: vec![CopyStatus {
                repo: "local".parse().expect("a name"),
                health: Health::Ok,
                reasons: Vec::new(),
                newest: Some(NewestCopy {
                    id: SnapshotId::new(BlobId::from_bytes([1; 32])),
                    time: Timestamp::from_second(1_764_000_000).expect("a time"),
                    files: 3,
                    bytes: 42,
                }),
            }],
            attempt: None,
            next: None,
            drill: None,
            recovery_seconds: Some(12.5),
        };
        let verified = RepoStatus {
            repo: "local".parse().expect("a name"),
            demand: Demand { every: "7d".parse().expect("a lapse"), read: "5%".parse().expect("a share") },
            health: Health::Warning,
            reasons: Vec::new(),
            known: Some(Known { packs_never_read: 7, ..Known::default() }),
            last: None,
        };
        let plan = plan(
            "[repo.b]\nurl = '/b'\n[class.c]\nrto = '45m'\n[[domain]]\nname = 'shop'\nclass = 'c'\npaths = ['/x']\n\
             [[drill]]\nname = 'weekly'\ndomains = ['shop']\ntier = 'full'\n",
        );
        let drill = |repo, outcome, began| DrillRecord {
            drill: name("weekly"),
            tier: Tier::Full,
            repository: Some(name(repo)),
            began: Timestamp::from_second(began).expect("a time"),
            outcome,
            reason: None,
            self_test: false,
            restored: Vec::new(),
            phases: vec![Timed { phase: Phase::Fetch, seconds: 1.5 }],
            rto: None,
        };
        let drills = [
            drill("b", DrillOutcome::Pass, 1),
            drill("b", DrillOutcome::Fail, 2),
            drill("a", DrillOutcome::Unverified, 3),
        ];
        let finding = |control, standing| Finding {
            domain: name("shop"),
            control,
            standing,
            wanted: String::new(),
            found: String::new(),
            exception: None,
            is_damage: false,
        };
        let compliance = Compliance {
            findings: vec![
                finding(Control::Rpo, Standing::Met),
                finding(Control::Rto, Standing::Unknown),
                finding(Control::Copies, Standing::Violated),
            ],
            expired: Vec::new(),
        };
        let text = render(&Numbers {
            plan: &plan,
            domains: &[status],
            repositories: &[verified],
            drills: &drills,
            compliance: &compliance,
        });
        for line in [
            "# TYPE strongroom_health gauge",
            "strongroom_health{domain=\"shop\"} 2",
            "strongroom_copy_health{domain=\"shop\",repository=\"local\"} 0",
            "strongroom_snapshot_timestamp_seconds{domain=\"shop\",repository=\"local\"} 1764000000",
            "strongroom_rpo_seconds{domain=\"shop\"} 86400",
            "strongroom_verify_health{repository=\"local\"} 1",
            "strongroom_packs_never_verified{repository=\"local\"} 7",
            "strongroom_drill_outcome{drill=\"weekly\",repository=\"a\"} 1",
            "strongroom_drill_outcome{drill=\"weekly\",repository=\"b\"} 2",
            "strongroom_drill_timestamp_seconds{drill=\"weekly\",repository=\"b\"} 2",
            "strongroom_drill_seconds{drill=\"weekly\",repository=\"b\"} 1.5",
            "strongroom_recovery_seconds{domain=\"shop\"} 12.5",
            "strongroom_rto_seconds{domain=\"shop\"} 2700",
            "strongroom_target{domain=\"shop\",target=\"rpo\"} 0",
            "strongroom_target{domain=\"shop\",target=\"rto\"} 3",
            "strongroom_target{domain=\"shop\",target=\"copies\"} 2",
            "strongroom_exceptions_expired 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n") && !text.contains("strongroom_attempt_success{"), "{text}");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("strongroom.prom");
        write(&path, "old").and_then(|()| write(&path, &text)).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("text"), text);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        assert!(write(&folder.path().join("missing/x"), "").is_err());
    }
}
