//! Exclude patterns given as options or in pattern files.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use globset::{Candidate, Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use super::FilterError;

/// Where a pattern was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the options of the run.
    Options,
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options => f.write_str("given as an option"),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
        }
    }
}

/// One exclude pattern.
///
/// It is matched against full paths, whole names at a time, and means what it means to restic:
/// - `*.o`, `cache`, `a/b`: without a leading slash, these names one after the other at any depth;
/// - `/home/*/tmp`: with one, from the root of the file system;
/// - `*` and `?` stand for bytes of one name, `[a-z]` and `[!a-z]` for one byte of it, `**` as a whole name for any
///   number of names (none too), at the end for everything below; `\` takes the meaning from the next character;
/// - `{a,b}` stands for either, which restic does not have;
/// - `!` in front keeps what an earlier pattern excluded, and all below it.
///
/// Empty names and `.` are skipped, a slash at the end too. Environment variables are not replaced.
#[derive(Debug, Clone)]
pub struct Rule {
    pattern: String,
    origin: Origin,
    keeps: bool,
    glob: String,
}

impl Rule {
    fn parse(pattern: &str, origin: Origin) -> Result<Self, FilterError> {
        let (keeps, path) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        let glob = glob_for(path).map_err(|reason| FilterError::Pattern {
            pattern: pattern.to_owned(),
            origin: origin.clone(),
            reason: reason.to_owned(),
        })?;
        Ok(Self { pattern: pattern.to_owned(), origin, keeps, glob })
    }

    /// The pattern as it was written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Where it was written.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    fn compile(&self, glob: &str, ignores_case: bool) -> Result<Glob, FilterError> {
        let glob = if ignores_case { Cow::Owned(lower_case(glob)) } else { Cow::Borrowed(glob) };
        GlobBuilder::new(&glob).literal_separator(true).backslash_escape(true).build().map_err(|error| {
            FilterError::Pattern {
                pattern: self.pattern.clone(),
                origin: self.origin.clone(),
                reason: error.kind().to_string(),
            }
        })
    }
}

/// The glob that matches full paths as `pattern` does.
fn glob_for(pattern: &str) -> Result<String, &'static str> {
    let names: Vec<_> = pattern.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    if names.is_empty() {
        return Err("it names nothing");
    }
    if names.contains(&"..") {
        return Err("no path of the source holds \"..\"");
    }
    let names = names.join("/");
    Ok(if pattern.starts_with('/') { format!("/{names}") } else { format!("**/{names}") })
}

/// The rules in `patterns`, given as options.
pub(super) fn given(patterns: &[String]) -> Result<Vec<Rule>, FilterError> {
    patterns.iter().map(|pattern| Rule::parse(pattern, Origin::Options)).collect()
}

/// The rules in the pattern file at `path`.
pub(super) fn of_file(path: &Path) -> Result<Vec<Rule>, FilterError> {
    let bytes = fs::read(path).map_err(|source| FilterError::File { path: path.to_owned(), source })?;
    let mut rules = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let origin = Origin::File { path: path.to_owned(), line: index + 1 };
        let Ok(pattern) = str::from_utf8(line) else {
            let pattern = String::from_utf8_lossy(line).into_owned();
            let reason = "it is not UTF-8; use ? or * for other bytes".to_owned();
            return Err(FilterError::Pattern { pattern, origin, reason });
        };
        rules.push(Rule::parse(pattern, origin)?);
    }
    Ok(rules)
}

/// A list of rules, of which the last that matches decides.
#[derive(Debug)]
pub(super) struct Patterns {
    rules: Vec<Rule>,
    globs: GlobSet,
    /// For each glob the rule that it belongs to, ascending.
    rule_of_glob: Vec<usize>,
    ignores_case: bool,
}

impl Patterns {
    /// Compiles `rules`; `None` where there are none.
    pub(super) fn new(rules: Vec<Rule>, ignores_case: bool) -> Result<Option<Self>, FilterError> {
        let Some(last) = rules.last() else {
            return Ok(None);
        };
        let mut globs = GlobSetBuilder::new();
        let mut rule_of_glob = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            globs.add(rule.compile(&rule.glob, ignores_case)?);
            rule_of_glob.push(index);
            if rule.keeps {
                // What is excluded is not descended into, but what is kept is, so this needs saying.
                globs.add(rule.compile(&format!("{}/**", rule.glob), ignores_case)?);
                rule_of_glob.push(index);
            }
        }
        // Each pattern has been accepted by itself, so this is about all of them: too large together.
        let globs = globs.build().map_err(|error| FilterError::Pattern {
            pattern: last.pattern.clone(),
            origin: last.origin.clone(),
            reason: format!("together with the {} before it: {error}", rules.len() - 1),
        })?;
        Ok(Some(Self { rules, globs, rule_of_glob, ignores_case }))
    }

    /// The rule that excludes `path`, if the last one that matches does.
    pub(super) fn excluding(&self, path: &Path) -> Option<&Rule> {
        self.last_match(path).map(|rule| &self.rules[rule]).filter(|rule| !rule.keeps)
    }

    /// Number of the last rule that matches `path`.
    fn last_match(&self, path: &Path) -> Option<usize> {
        let mut bytes = Cow::Borrowed(path.as_os_str().as_bytes());
        if self.ignores_case {
            bytes = Cow::Owned(lower_case_bytes(&bytes));
        }
        let matching = self.globs.matches_candidate(&Candidate::from_bytes(bytes.as_ref()));
        matching.into_iter().max().map(|last| self.rule_of_glob[last])
    }
}

/// Patterns that say something else of a path than to leave it out. They mean what exclude patterns mean.
#[derive(Debug, Default)]
pub struct PathPatterns(Option<Patterns>);

impl PathPatterns {
    /// Compiles patterns.
    ///
    /// # Errors
    /// [`FilterError::Pattern`] where one does not parse or begins with `!`.
    pub fn new(patterns: &[String]) -> Result<Self, FilterError> {
        Self::compile(patterns, false)
    }

    /// The same for patterns to which upper and lower case are the same.
    ///
    /// # Errors
    /// As [`PathPatterns::new`].
    pub fn ignoring_case(patterns: &[String]) -> Result<Self, FilterError> {
        Self::compile(patterns, true)
    }

    fn compile(patterns: &[String], ignores_case: bool) -> Result<Self, FilterError> {
        let rules = given(patterns)?;
        if let Some(rule) = rules.iter().find(|rule| rule.keeps) {
            return Err(FilterError::Pattern {
                pattern: rule.pattern.clone(),
                origin: rule.origin.clone(),
                reason: "\"!\" takes an exclusion back, and here nothing is excluded".to_owned(),
            });
        }
        Patterns::new(rules, ignores_case).map(Self)
    }

    /// Number of the last pattern that matches this full path.
    pub fn last_match(&self, path: &Path) -> Option<usize> {
        self.0.as_ref()?.last_match(path)
    }
}

/// Lower case, character by character: the same whatever stands beside it, which `str::to_lowercase` is not.
fn lower_case(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// Lower case of what is UTF-8; other bytes stay.
fn lower_case_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut lower = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        lower.extend_from_slice(lower_case(chunk.valid()).as_bytes());
        lower.extend_from_slice(chunk.invalid());
    }
    lower
}
