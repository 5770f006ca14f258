//! Which entries of a snapshot a restore takes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::RestoreOptions;
use crate::source::{DirFilter, Filter, FilterError, FilterOptions, SourceKind};

/// What is to be done about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Restore it, and all below it that is not excluded.
    Take,
    /// A directory that is not wanted itself: something below it may be.
    Search,
    /// Leave it out with all below it.
    Skip,
}

/// Include and exclude patterns, matched against paths in the snapshot.
#[derive(Debug)]
pub(super) struct Selector {
    include: Option<Filter>,
    exclude: Option<Filter>,
    everywhere: DirFilter,
}

impl Selector {
    pub(super) fn new(options: &RestoreOptions) -> Result<Self, FilterError> {
        let filter = |patterns: &[String]| {
            let options = FilterOptions { exclude: patterns.to_vec(), ..FilterOptions::default() };
            if patterns.is_empty() { Ok(None) } else { Filter::new(options).map(Some) }
        };
        let any = Filter::new(FilterOptions::default())?;
        Ok(Self {
            include: filter(&options.include)?,
            exclude: filter(&options.exclude)?,
            everywhere: any.above_root(0),
        })
    }

    /// Whether there is no pattern at all.
    pub(super) fn takes_all(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    /// Whether everything is wanted that is not excluded.
    pub(super) fn includes_all(&self) -> bool {
        self.include.is_none()
    }

    /// What to do about the entry with the full path `path`; `inside` says that a directory above it is wanted.
    pub(super) fn verdict(&self, path: &[u8], is_directory: bool, inside: bool) -> Verdict {
        if self.exclude.as_ref().is_some_and(|filter| self.matches(filter, path)) {
            return Verdict::Skip;
        }
        match &self.include {
            Some(filter) if !inside && !self.matches(filter, path) => {
                if is_directory {
                    Verdict::Search
                } else {
                    Verdict::Skip
                }
            }
            _ => Verdict::Take,
        }
    }

    fn matches(&self, filter: &Filter, path: &[u8]) -> bool {
        // Kind and size matter only to rules that a restore does not have.
        filter.excluded(&self.everywhere, Path::new(OsStr::from_bytes(path)), SourceKind::File, 0).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(include: &[&str], exclude: &[&str]) -> Selector {
        let own = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let options =
            RestoreOptions { include: own(include), exclude: own(exclude), ..RestoreOptions::default() };
        Selector::new(&options).unwrap()
    }

    #[test]
    fn excludes_win_and_includes_reach_down() {
        let all = selector(&[], &[]);
        assert!(all.takes_all());
        assert_eq!(all.verdict(b"/a", false, false), Verdict::Take);
        let some = selector(&["/home/*/docs"], &["*.tmp"]);
        assert_eq!(some.verdict(b"/home", true, false), Verdict::Search);
        assert_eq!(some.verdict(b"/home/x", false, false), Verdict::Skip);
        assert_eq!(some.verdict(b"/home/ann/docs", true, false), Verdict::Take);
        assert_eq!(some.verdict(b"/home/ann/docs/deep/file", false, true), Verdict::Take);
        assert_eq!(some.verdict(b"/home/ann/docs/x.tmp", false, true), Verdict::Skip);
        assert_eq!(some.verdict(b"/x.tmp", true, false), Verdict::Skip);
    }

    #[test]
    fn a_pattern_that_does_not_parse_is_an_error() {
        let options = RestoreOptions { include: vec!["a[".to_owned()], ..RestoreOptions::default() };
        assert!(Selector::new(&options).is_err());
    }
}
