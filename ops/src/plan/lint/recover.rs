//! What a plan says of recoveries that cannot be. A recovery is refused for it: a finding here keeps nobody from backing up.

use crate::plan::lint::{Lint, Severity};
use crate::plan::types::Domain;
use crate::recover::mistake::{Mistake, mistakes};

impl Lint<'_> {
    /// How a domain is recovered.
    pub(super) fn recovery(&mut self, domain: &Domain) {
        for Mistake { code, key, message, hint } in mistakes(domain) {
            let key = format!("domain.{}.{key}", domain.name);
            let refused =
                "no recovery of the domain is begun until that is put right; all else of the plan is done";
            let hint = hint.map_or_else(|| refused.to_owned(), |hint| format!("{hint}; {refused}"));
            self.add(Severity::Violation, code, &key, message).hint = Some(hint);
        }
        let Some(recover) = &domain.recover else { return };
        if recover.stop.is_empty() != recover.start.is_empty() {
            let (has, lacks) = if recover.start.is_empty() { ("stop", "start") } else { ("start", "stop") };
            let message = format!("the recovery of the domain {} has {has}, and no {lacks}", domain.name);
            let key = format!("domain.{}.recover.{has}", domain.name);
            self.add(Severity::Warning, "half-recover", &key, message).hint = Some(
                "what uses the data has to be stopped before it is swapped, and started after that".into(),
            );
        }
    }
}
