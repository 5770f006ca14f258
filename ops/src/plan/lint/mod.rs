//! What a plan says that cannot be, and where it misses its own targets.

mod host;
mod loads;
mod recover;
mod targets;

use std::collections::BTreeSet;
use std::path::Path;

use jiff::civil::Date;

use strongroom::format::provenance::Provenance;
use strongroom::source::Filter;

pub use self::host::Host;
use crate::drill::choose::repository;
use crate::drill::mistake::{Mistake, mistakes};
use crate::order::order;
use crate::plan::load::{Place, Plan};
use crate::plan::mistake::nearest;
use crate::plan::types::{Domain, Drill};
use crate::plan::values::Name;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The plan cannot be run as it is.
    Error,
    /// It can be run, and will miss a target that it sets itself.
    Violation,
    /// Somebody should look at it.
    Warning,
}

/// Something to say about a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name for programs.
    pub code: &'static str,
    /// Where in the plan, if it is at one place.
    pub place: Option<Place>,
    /// What it is.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Looks a plan through. `today` decides which exceptions hold.
pub fn lint(plan: &Plan, today: Date, host: &Host<'_>) -> Vec<Finding> {
    let mut lint = Lint { plan, today, found: Vec::new() };
    lint.includes();
    lint.repositories();
    lint.references();
    for domain in &plan.domains {
        lint.sources(domain);
        lint.recovery(domain);
        lint.targets(domain);
    }
    for drill in &plan.drills {
        lint.drill(drill);
        lint.loads(drill);
    }
    lint.exceptions();
    lint.metrics();
    lint.notifications();
    lint.host(host);
    lint.found.sort_by_key(|finding| finding.severity);
    lint.found
}

struct Lint<'p> {
    plan: &'p Plan,
    today: Date,
    found: Vec<Finding>,
}

impl Lint<'_> {
    fn add(&mut self, severity: Severity, code: &'static str, key: &str, message: String) -> &mut Finding {
        // The key itself, else the table it would stand in.
        let ways = std::iter::successors(Some(key), |key| key.rsplit_once('.').map(|(above, _)| above));
        let place = ways.filter_map(|key| self.plan.places.get(key)).next().cloned();
        self.found.push(Finding { severity, code, place, message, hint: None });
        self.found.last_mut().expect("just added")
    }

    fn error(&mut self, code: &'static str, key: &str, message: String) -> &mut Finding {
        self.add(Severity::Error, code, key, message)
    }

    /// Timers run in other directories than people: what a relative path means differs, also for what is to be cleaned up.
    fn whole_path(&mut self, key: &str, of: &str, path: &str) {
        if !path.starts_with('/') {
            let message = format!("{of} has the relative path {path:?}");
            self.error("relative-path", key, message).hint =
                Some("write the whole path: a plan has to mean the same wherever it is run".into());
        }
    }

    fn repositories(&mut self) {
        if self.plan.repos.is_empty() {
            let message = "the plan names no repository".to_owned();
            self.error("no-repository", "repo", message).hint =
                Some("add a table [repo.NAME] with a url".into());
        }
        if self.plan.domains.is_empty() {
            let message = "the plan protects nothing: it has no domain".to_owned();
            self.error("no-domain", "domain", message).hint =
                Some("add a table [[domain]] with a name".into());
        }
        let roots = self.plan.inventory.iter().flat_map(|inventory| &inventory.roots);
        for root in roots.filter(|root| !root.starts_with('/')) {
            let message = format!("the inventory has the relative path {root:?}");
            self.add(Severity::Warning, "relative-path", "inventory.roots", message).hint =
                Some("write the whole path: `coverage` has to look at the same wherever it is run".into());
        }
        let ignored = self.plan.inventory.iter().flat_map(|inventory| &inventory.ignore);
        let ignored = ignored.map(|ignored| ("inventory.ignore".to_owned(), &ignored.path));
        let dumped = self.plan.domains.iter().flat_map(|domain| {
            domain.stream.iter().flat_map(|stream| {
                let key = format!("domain.{}.stream.{}.data", domain.name, stream.name);
                stream.data.iter().map(move |path| (key.clone(), path))
            })
        });
        for (key, path) in ignored.chain(dumped).filter(|(_, path)| !path.starts_with('/')) {
            let message = format!("`coverage` cannot find the relative path {path:?}");
            self.add(Severity::Warning, "relative-path", &key, message).hint =
                Some("write the whole path: `coverage` has to look at the same wherever it is run".into());
        }
        for (name, repo) in &self.plan.repos {
            let key = format!("repo.{name}");
            let local = repo.local();
            if local.is_some_and(Path::is_relative) {
                let message = format!("the repository {name} has the relative path {:?}", repo.url);
                self.error("relative-path", &format!("{key}.url"), message).hint =
                    Some("write the whole path: a plan has to mean the same wherever it is run".into());
            }
            if local.is_none() {
                let message =
                    format!("this version knows no repositories like {:?}, that of {name}", repo.url);
                self.add(Severity::Warning, "unknown-scheme", &format!("{key}.url"), message).hint = Some(
                    "until one does, backups into it fail: give a folder, such as a mounted file system"
                        .into(),
                );
            }
            let mut before = self.plan.repos.range::<Name, _>(..name);
            if let Some((twin, _)) = before.find(|(_, other)| other.url == repo.url) {
                let message = format!("the repositories {twin} and {name} are one: both are {:?}", repo.url);
                self.add(Severity::Violation, "one-repository", &format!("{key}.url"), message).hint =
                    Some("what is in both is there once".into());
            }
            if let Some(path) = &repo.password_file {
                let of = format!("the password file of the repository {name}");
                self.whole_path(&format!("{key}.password_file"), &of, path);
            }
            self.key_copies(name, repo);
            if repo.password_command.is_some() && repo.password_file.is_some() {
                let message = format!("the repository {name} has password_command and password_file");
                self.error("two-passwords", &key, message).hint = Some("keep one of them".into());
            }
        }
    }

    /// Names that lead nowhere, and circles.
    fn references(&mut self) {
        let plan = self.plan;
        let domains: Vec<&str> = plan.domains.iter().map(|domain| domain.name.as_str()).collect();
        let repos: Vec<&str> = plan.repos.keys().map(Name::as_str).collect();
        let classes: Vec<&str> = plan.classes.keys().map(Name::as_str).collect();
        for domain in &plan.domains {
            let key = |field: &str| format!("domain.{}.{field}", domain.name);
            let of = format!("domain {}", domain.name);
            if let Some(class) = &domain.class {
                self.known("class", class.as_str(), &classes, &of, &key("class"));
            }
            for repo in domain.to.iter().flatten() {
                self.known("repository", repo.as_str(), &repos, &of, &key("to"));
            }
            if domain.to.as_ref().is_some_and(Vec::is_empty) {
                self.error("goes-nowhere", &key("to"), format!("the {of} goes to no repository"));
            }
            for after in &domain.after {
                self.known("domain", after.as_str(), &domains, &of, &key("after"));
            }
        }
        for drill in &plan.drills {
            let of = format!("drill {}", drill.name);
            let key = |field: &str| format!("drill.{}.{field}", drill.name);
            let before = self.found.len();
            for domain in &drill.domains {
                self.known("domain", domain.as_str(), &domains, &of, &key("domains"));
            }
            if let Some(from) = drill.from.as_deref().filter(|from| *from != "rotate") {
                self.known("repository", from, &repos, &of, &key("from"));
            }
            // The drill is refused, and nothing else.
            self.found[before..].iter_mut().for_each(|finding| finding.severity = Severity::Violation);
        }
        for exception in &plan.exceptions {
            let of = format!("exception {}", exception.id);
            let key = format!("exception.{}.domain", exception.id);
            self.known("domain", exception.domain.as_str(), &domains, &of, &key);
        }
        if let Err(cycle) = order(&plan.domains) {
            let key = format!("domain.{}.after", cycle.0[0]);
            self.error("cycle", &key, cycle.to_string()).hint =
                Some("take one name out of one of the `after` lists".into());
        }
    }

    fn known(&mut self, what: &str, name: &str, known: &[&str], of: &str, key: &str) {
        if !known.contains(&name) {
            let hint = match nearest(name, known) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None if known.is_empty() => format!("the plan has no {what}"),
                None => format!("there are: {}", known.join(", ")),
            };
            self.error(
                "unknown-name",
                key,
                format!("the {of} names the {what} {name:?}, which is not in the plan"),
            )
            .hint = Some(hint);
        }
    }

    /// What a domain leaves out, and should.
    fn left_out(&mut self, domain: &Domain) {
        let name = &domain.name;
        let filter = match Filter::new(domain.filter()) {
            Ok(filter) => filter,
            Err(error) => {
                let message = format!("the domain {name}: {error}");
                self.error("bad-pattern", &format!("domain.{name}.exclude"), message);
                return;
            }
        };
        for (repo, place) in self.plan.repos.iter().filter_map(|(name, repo)| Some((name, repo.local()?))) {
            if domain.reaches(place) && !domain.leaves_out(&filter, place) {
                // The engine knows a repository where it lies, and leaves it out; in a snapshot of the file system it is
                // another directory, which holds all that was ever backed up.
                let (severity, what) = match domain.snapshot {
                    Some(_) => (
                        Severity::Error,
                        "of which a file system snapshot is read: each backup would hold all earlier ones",
                    ),
                    None => (Severity::Warning, "and is left out of them each time"),
                };
                let message = format!("the repository {repo} lies in the paths of the domain {name}, {what}");
                let key = format!("domain.{name}.paths");
                self.add(severity, "repository-in-path", &key, message).hint =
                    Some(format!("add {place:?} to exclude"));
            }
        }
    }

    /// What a domain reads.
    fn sources(&mut self, domain: &Domain) {
        let key = |field: &str| format!("domain.{}.{field}", domain.name);
        let name = &domain.name;
        if domain.paths.is_empty() && domain.sqlite.is_empty() && domain.stream.is_empty() {
            let message = format!("the domain {name} protects nothing: it has no paths, sqlite or stream");
            self.error("empty-domain", &key(""), message);
        }
        for (field, paths) in [("paths", &domain.paths), ("sqlite", &domain.sqlite)] {
            for path in paths {
                let parts = Path::new(path).components();
                let plain = parts
                    .filter(|part| *part != std::path::Component::RootDir)
                    .all(|part| matches!(part, std::path::Component::Normal(_)));
                if !path.starts_with('/') || !plain || path.contains('\0') {
                    let message = format!("the domain {name} has the path {path:?}");
                    self.error("relative-path", &key(field), message).hint =
                        Some("write the whole path from / on, without `..`".into());
                }
            }
        }
        if domain.facts.len() > Provenance::FACTS_MAX {
            let message = format!(
                "the domain {name} has {} facts, and a snapshot holds up to {}",
                domain.facts.len(),
                Provenance::FACTS_MAX
            );
            self.error("too-many-facts", &key("facts"), message).hint =
                Some("let one command print several of them".into());
        }
        self.left_out(domain);
        let first =
            |path: &str| path.trim_start_matches('/').split('/').next().unwrap_or_default().to_owned();
        let mut names = BTreeSet::new();
        for stream in &domain.stream {
            let stream_key = format!("domain.{name}.stream.{}", stream.name);
            if strongroom::target::check_name(stream.name.as_bytes()).is_err() {
                let message =
                    format!("{:?} cannot be the name of a stream: it becomes a file's name", stream.name);
                self.error("bad-stream-name", &stream_key, message);
            }
            // The plan itself is in every snapshot.
            let own = self.plan.sources.iter().map(|source| source.path.to_string_lossy());
            let roots = domain.paths.iter().chain(&domain.sqlite).map(|path| path.as_str().into());
            let taken: Option<std::borrow::Cow<'_, str>> =
                roots.chain(own).find(|path| first(path) == stream.name);
            if let Some(path) = taken {
                let message =
                    format!("the stream {:?} and the path {path:?} would be at one place", stream.name);
                self.error("name-taken", &stream_key, message).hint =
                    Some("give the stream another name".into());
            }
            if !names.insert(&stream.name) {
                let message = format!("the domain {name} has two streams of the name {:?}", stream.name);
                self.error("name-taken", &stream_key, message);
            }
            if stream.min_bytes.is_none() && stream.tee_check.is_none() && stream.expect_tail.is_none() {
                let message =
                    format!("nothing but its exit code tells whether the stream {:?} is whole", stream.name);
                self.add(Severity::Warning, "unchecked-stream", &stream_key, message).hint =
                    Some("add tee_check, expect_tail or min_bytes".into());
            }
        }
        let whole = domain.paths.iter().any(|path| first(path).is_empty());
        if whole && !domain.stream.is_empty() {
            let message = format!(
                "the domain {name} has streams beside the path /, in which there is no place for them"
            );
            self.error("name-taken", &key("paths"), message).hint =
                Some("give the streams a domain of their own".into());
        }
        for database in &domain.sqlite {
            // The database itself is taken whatever is left out.
            let above = Path::new(database).parent().unwrap_or(Path::new("/"));
            let filter = Filter::new(domain.filter()).ok();
            if filter.is_some_and(|filter| domain.reaches(above) && domain.leaves_out(&filter, above)) {
                let message = format!(
                    "the SQLite database {database:?} of the domain {name} lies in a directory that `exclude` leaves out"
                );
                self.error("sqlite-in-path", &key("sqlite"), message).hint =
                    Some("give it a domain of its own, or exclude less".into());
            }
        }
        if let Some(hooks) = &domain.snapshot {
            let root = hooks.root.as_deref().unwrap_or("/");
            if domain.paths.is_empty() || domain.paths.iter().any(|path| !Path::new(path).starts_with(root)) {
                let message = format!(
                    "the file system snapshot of the domain {name} is of {root:?}, outside of its paths"
                );
                self.error("snapshot-root", &key("snapshot"), message);
            }
        }
    }

    fn drill(&mut self, drill: &Drill) {
        let key = |field: &str| format!("drill.{}.{field}", drill.name);
        let from = drill.from.as_deref().filter(|from| *from != "rotate");
        let is_known = from.is_none_or(|from| self.plan.repos.keys().any(|repo| repo.as_str() == from))
            && drill.domains.iter().all(|domain| self.plan.domain(domain.as_str()).is_some());
        if let Err(reason) = repository(self.plan, drill, None, &[])
            && is_known
            && !drill.domains.is_empty()
        {
            let message =
                format!("the drill {} can only end with \"could not be verified\": {reason}", drill.name);
            let field = if from.is_some() { "from" } else { "domains" };
            self.add(Severity::Violation, "drill-nowhere", &key(field), message).hint = Some(
                "a drill restores all of its domains from one repository: split it, or change `to`".into(),
            );
        }
        for (domain, stream) in self.plan.unloaded(drill) {
            let message = format!(
                "nothing in the drill {} loads the stream {stream:?} of the domain {domain}, so it can only end with \"could not \
                 be verified\"",
                drill.name
            );
            self.add(Severity::Warning, "unloaded-stream", &key("step"), message).hint = Some(format!(
                "give the stream a command `restore` and the drill a step that restores {domain}, or look at the file \
                 ${{scratch}}/{domain}/{stream} in a step"
            ));
        }
        for Mistake { code, key, part, wrong } in mistakes(drill) {
            let of = part.map_or(String::new(), |part| format!("{part} of "));
            let message = format!("{of}the drill {} {wrong}", drill.name);
            let key = format!("drill.{}.{key}", drill.name);
            self.add(Severity::Violation, code, &key, message).hint = Some(
                "nothing of the drill is begun until that is put right; all else of the plan is done".into(),
            );
        }
    }

    fn metrics(&mut self) {
        if let Some(metrics) = &self.plan.metrics {
            self.whole_path("metrics.textfile", "the file of the metrics", &metrics.textfile);
        }
    }

    fn notifications(&mut self) {
        for (number, notify) in self.plan.notify.iter().enumerate() {
            let ways =
                [notify.webhook_env.is_some(), notify.heartbeat_env.is_some(), notify.command.is_some()];
            if ways.iter().filter(|way| **way).count() != 1 {
                let message =
                    format!("notify {} needs one of webhook_env, heartbeat_env and command", number + 1);
                self.error("bad-notify", &format!("notify.{}", number + 1), message);
            }
        }
    }
}
