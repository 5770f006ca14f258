//! What a plan names and the host lacks. It may be there when it is needed, as after a mount, so that each is a warning.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Lint, Severity};

/// The host on which a plan is looked through.
pub struct Host<'h> {
    /// Whether a program can be run.
    pub has_program: &'h dyn Fn(&str) -> bool,
    /// Whether there is something at a path, or may be.
    pub has_path: &'h dyn Fn(&Path) -> bool,
}

impl Host<'static> {
    /// One that lacks nothing: what is looked at is the plan alone.
    pub const COMPLETE: Self = Self { has_program: &|_| true, has_path: &|_| true };
}

impl Lint<'_> {
    /// Programs and paths that are not there.
    pub(super) fn host(&mut self, host: &Host<'_>) {
        let mut missing = BTreeSet::new();
        for (key, argv) in self.plan.commands() {
            if !(host.has_program)(argv.program()) && missing.insert(argv.program()) {
                let message = format!("there is no program {:?} on this system", argv.program());
                self.add(Severity::Warning, "no-program", &key, message);
            }
        }
        for (name, repo) in &self.plan.repos {
            let Some(file) = repo.password_file.as_deref().filter(|file| file.starts_with('/')) else {
                continue;
            };
            if !(host.has_path)(Path::new(file)) {
                let message =
                    format!("the password of the repository {name} is in {file:?}, where nothing is");
                let key = format!("repo.{name}.password_file");
                self.add(Severity::Warning, "no-password-file", &key, message).hint =
                    Some("nothing can be done with the repository as long as that is so".into());
            }
        }
        for domain in &self.plan.domains {
            for (field, paths) in [("paths", &domain.paths), ("sqlite", &domain.sqlite)] {
                // Of others it was said already that they are not whole.
                let whole = paths.iter().filter(|path| path.starts_with('/'));
                for path in whole.filter(|path| !(host.has_path)(Path::new(path))) {
                    let message =
                        format!("the domain {} has the path {path:?}, where nothing is", domain.name);
                    let key = format!("domain.{}.{field}", domain.name);
                    self.add(Severity::Warning, "no-source", &key, message).hint = Some(
                        "a run of the domain fails as long as that is so: mount or make it, or correct the path".into(),
                    );
                }
            }
        }
    }
}
