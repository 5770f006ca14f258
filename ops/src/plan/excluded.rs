//! What a domain leaves out by its own patterns, and how to have a file of it all the same.

use std::path::Path;

use strongroom::source::{Filter, FilterError, FilterOptions, SourceKind};

use crate::plan::types::Domain;
use crate::recover::targets::SQLITE_FILES;

impl Domain {
    /// What is left out of its paths.
    pub fn filter(&self) -> FilterOptions {
        FilterOptions {
            exclude: self.exclude.clone(),
            one_file_system: self.one_file_system,
            ..FilterOptions::default()
        }
    }

    /// Whether a path is one of its paths, or below one.
    pub fn reaches(&self, path: &Path) -> bool {
        self.paths.iter().any(|root| path.starts_with(root))
    }

    /// Whether the filter, which is its own, leaves a path out: by its own name, or by that of a directory above it.
    pub fn leaves_out(&self, filter: &Filter, path: &Path) -> bool {
        path.ancestors().take_while(|above| self.reaches(above)).any(|above| is_excluded(filter, above))
    }

    /// Patterns for the files beside its SQLite databases that lie in its paths: without the database as it is just then they are worth
    /// nothing, and beside a copy of it they would spoil that.
    pub fn beside_databases(&self) -> Vec<String> {
        let inside = self.sqlite.iter().filter(|path| self.reaches(Path::new(path)));
        let files = inside.flat_map(|path| SQLITE_FILES.map(|behind| format!("{path}{behind}")));
        files.map(|path| escaped(&path)).collect()
    }

    /// Patterns that, behind its own, make it have these files, and nothing else that it leaves out. Files that it does not
    /// reach count for nothing.
    ///
    /// # Errors
    /// [`FilterError`] where its own patterns cannot be used.
    pub fn keeping<'f>(&self, files: impl Iterator<Item = &'f Path>) -> Result<Vec<String>, FilterError> {
        let mut options = self.filter();
        let own = options.exclude.len();
        for file in files {
            let mut way: Vec<&Path> = file
                .ancestors()
                .take_while(|above| self.reaches(above) && above.parent().is_some())
                .collect();
            way.reverse();
            for at in way {
                if !is_excluded(&Filter::new(options.clone())?, at) {
                    continue;
                }
                let pattern = escaped(&at.to_string_lossy());
                // What is kept is kept with all that is below it: that is left out again.
                let below = (at != file).then(|| format!("{pattern}/*"));
                options.exclude.push(format!("!{pattern}"));
                options.exclude.extend(below);
            }
        }
        Ok(options.exclude.split_off(own))
    }
}

fn is_excluded(filter: &Filter, path: &Path) -> bool {
    filter.excluded(&filter.above_root(0), path, SourceKind::Directory, 0).is_some()
}

/// A pattern that means this path.
fn escaped(path: &str) -> String {
    let mut pattern = String::new();
    for c in path.chars() {
        if "*?[]{}\\".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::load::tests_support::plan;

    fn domain(exclude: &str) -> Domain {
        plan(&format!("[[domain]]\nname = 'x'\npaths = ['/etc']\nexclude = [{exclude}]\n")).domains.remove(0)
    }

    #[test]
    fn a_file_is_kept_and_nothing_beside_it() {
        let files = ["/etc/a[1]/s/plan.toml", "/etc/a[1]/s/more.toml", "/srv/other.toml"];
        for (exclude, keeping) in [
            ("", 0),
            ("'*.bak'", 0),
            ("'*.toml'", 2),
            ("'/etc/a*'", 6),
            ("'s'", 4),
            ("'/etc/**', '!/etc/b'", 6),
            ("'/etc'", 8),
        ] {
            let mut domain = domain(exclude);
            let left_out = |domain: &Domain, path: &str| {
                domain.leaves_out(&Filter::new(domain.filter()).expect("patterns"), Path::new(path))
            };
            let before = ["/etc/a[1]/s/z.toml", "/etc/a[1]/y", "/etc/b/c", "/etc/a1/s/plan.toml"]
                .map(|path| (path, left_out(&domain, path)));
            let more = domain.keeping(files.iter().map(Path::new)).expect("patterns");
            assert_eq!(more.len(), keeping, "{exclude}: {more:?}");
            domain.exclude.extend(more);
            for file in &files[..2] {
                assert!(!left_out(&domain, file), "{exclude}: {file}");
            }
            for (path, was_left_out) in before {
                assert_eq!(left_out(&domain, path), was_left_out, "{exclude}: {path}");
            }
        }
    }
}
