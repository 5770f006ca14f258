//! Grains that the user has ordered for some files.

use std::path::Path;

use crate::format::tree::Grain;
use crate::source::{FilterError, PathPatterns};

/// A grain for the files that a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrainRule {
    /// The pattern, which means what an exclude pattern means.
    pub pattern: String,
    /// How matching files are cut, whatever they hold and however they were cut before.
    pub grain: Grain,
}

/// Rules ready for use.
#[derive(Debug, Default)]
pub(super) struct GrainRules {
    patterns: PathPatterns,
    grains: Vec<Grain>,
}

impl GrainRules {
    /// Compiles rules.
    pub(super) fn new(rules: &[GrainRule]) -> Result<Self, FilterError> {
        let patterns: Vec<String> = rules.iter().map(|rule| rule.pattern.clone()).collect();
        let grains = rules.iter().map(|rule| rule.grain).collect();
        Ok(Self { patterns: PathPatterns::new(&patterns)?, grains })
    }

    /// The grain ordered for the file with this full path: the last rule that matches decides.
    pub(super) fn of(&self, path: &Path) -> Option<Grain> {
        self.patterns.last_match(path).map(|rule| self.grains[rule])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, grain: Grain) -> GrainRule {
        GrainRule { pattern: pattern.to_owned(), grain }
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let rules =
            GrainRules::new(&[rule("*.img", Grain::Fine), rule("/srv/vm/*", Grain::Page)]).expect("patterns");
        assert_eq!(rules.of(Path::new("/home/a.img")), Some(Grain::Fine));
        assert_eq!(rules.of(Path::new("/srv/vm/a.img")), Some(Grain::Page));
        assert_eq!(rules.of(Path::new("/srv/vm/deep/a")), None);
        assert_eq!(GrainRules::default().of(Path::new("/x")), None);
    }

    #[test]
    fn a_pattern_that_takes_back_is_refused() {
        let error = GrainRules::new(&[rule("!*.img", Grain::Fine)]).expect_err("nothing to take back");
        assert!(error.to_string().contains("!*.img"), "{error}");
    }
}
