//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::exit::Exit;
use crate::failure::Failure;

/// From now on a signal sets the flag returned. For operations that look at it; all others end on a signal.
pub fn cancel_flag() -> Result<Arc<AtomicBool>, Failure> {
    let cancelled = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the first signal finds the flag unset, the second finds it set and ends the process.
        flag::register_conditional_shutdown(signal, Exit::Failed as i32, Arc::clone(&cancelled))
            .and_then(|_| flag::register(signal, Arc::clone(&cancelled)))
            .map_err(|error| Failure::io("cannot handle signals", &error))?;
    }
    Ok(cancelled)
}
