//! The status as OpenMetrics text, for the file collector of a monitoring system.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::run::state::Outcome;
use crate::status::DomainStatus;
use crate::verify::RepoStatus;

/// All numbers of a status.
pub fn render(status: &[DomainStatus], verified: &[RepoStatus]) -> String {
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
    of_repositories(&mut text, verified);
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
        let _ = writeln!(self.0, "{name}{{{}}} {value}", labels.join(","));
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
    use crate::status::{CopyStatus, Health, NewestCopy};
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
            recovery_seconds: None,
        };
        let verified = RepoStatus {
            repo: "local".parse().expect("a name"),
            demand: Demand { every: "7d".parse().expect("a lapse"), read: "5%".parse().expect("a share") },
            health: Health::Warning,
            reasons: Vec::new(),
            known: Some(Known { packs_never_read: 7, ..Known::default() }),
            last: None,
        };
        let text = render(&[status], &[verified]);
        for line in [
            "# TYPE strongroom_health gauge",
            "strongroom_health{domain=\"shop\"} 2",
            "strongroom_copy_health{domain=\"shop\",repository=\"local\"} 0",
            "strongroom_snapshot_timestamp_seconds{domain=\"shop\",repository=\"local\"} 1764000000",
            "strongroom_rpo_seconds{domain=\"shop\"} 86400",
            "strongroom_verify_health{repository=\"local\"} 1",
            "strongroom_packs_never_verified{repository=\"local\"} 7",
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
