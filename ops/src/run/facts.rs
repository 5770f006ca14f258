//! What a domain's commands say of the world around its data.

use std::time::Duration;

use strongroom::format::provenance::Provenance;

use crate::plan::types::Domain;
use crate::plan::values::Name;
use crate::run::process::{OUTPUT_LEN_MAX, Order, Processes, beginning};

/// Time that a command may take which finds a fact out.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Finds out all facts of a domain, each or why not.
pub(crate) fn facts<'d>(
    domain: &'d Domain,
    env: &[(String, String)],
    processes: &dyn Processes,
) -> Vec<(&'d Name, Result<String, String>)> {
    let find = |(name, argv)| {
        let order = Order { argv, env, timeout: TIMEOUT, heeds_cancel: true };
        let ended = processes.run(&order).map_err(|error| error.to_string());
        (name, ended.and_then(|ended| value(&ended.stdout)))
    };
    domain.facts.iter().map(find).collect()
}

/// What is kept of an output, and compared: of a long one its beginning and a hash of all, as what is newest often stands last.
fn value(stdout: &[u8]) -> Result<String, String> {
    if stdout.len() >= OUTPUT_LEN_MAX {
        return Err(format!(
            "it has {OUTPUT_LEN_MAX} bytes or more, and a difference may be in any of them: print less, or a hash of it"
        ));
    }
    let text = String::from_utf8_lossy(stdout);
    let text = text.trim_end();
    if text.len() <= Provenance::FACT_LEN_MAX {
        return Ok(text.to_owned());
    }
    let rest = format!("… ({} bytes, BLAKE3 {})", text.len(), blake3::hash(text.as_bytes()).to_hex());
    Ok(format!("{}{rest}", beginning(text, Provenance::FACT_LEN_MAX - rest.len())))
}
