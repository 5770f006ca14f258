//! Telling people and monitors, as the plan says. No command fails because somebody cannot be told.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use strongroom_ops::notify::Notifier;
use strongroom_ops::notify::http::SystemHttp;
use strongroom_ops::plan::Plan;
use strongroom_ops::run::state::State;

use crate::context::Context;
use crate::plan;

/// How long an address may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Has somebody told, and warns of whoever could not be.
pub fn tell(plan: &Plan, state: &State, context: &Context, act: impl FnOnce(&Notifier<'_>) -> Vec<String>) {
    if plan.notify.is_empty() {
        return;
    }
    for warning in with_notifier(plan, state, act) {
        context.output.warn(&format!("warning: {warning}"));
    }
}

/// Does something with whoever is to be told.
pub fn with_notifier<T>(plan: &Plan, state: &State, act: impl FnOnce(&Notifier<'_>) -> T) -> T {
    let http = SystemHttp::new(TIMEOUT);
    act(&Notifier {
        plan,
        host: plan::host(plan),
        http: &http,
        processes: Arc::new(plan::processes(plan, Arc::default())),
        variable: &|name| std::env::var(name).ok(),
        state,
        now: &Timestamp::now,
    })
}
