//! What a domain's commands say of the world around its data.

use std::time::Duration;

use strongroom::format::provenance::Provenance;

use crate::plan::types::Domain;
use crate::plan::values::Name;
use crate::run::process::{Order, ProcessError, Processes, beginning};

/// Time that a command may take which finds a fact out.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Finds out all facts of a domain, each or why not.
pub(crate) fn facts<'d>(
    domain: &'d Domain,
    env: &[(String, String)],
    processes: &dyn Processes,
) -> Vec<(&'d Name, Result<String, ProcessError>)> {
    let find = |(name, argv)| {
        let order = Order { argv, env, timeout: TIMEOUT, heeds_cancel: true };
        let value = processes.run(&order).map(|ended| {
            let value = String::from_utf8_lossy(&ended.stdout);
            beginning(value.trim_end(), Provenance::FACT_LEN_MAX).to_owned()
        });
        (name, value)
    };
    domain.facts.iter().take(Provenance::FACTS_MAX).map(find).collect()
}
