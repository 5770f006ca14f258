//! The plan: one TOML file, and those it includes, that say what is protected and how well.
//!
//! - [`types`]: what a plan can say; the JSON Schema is made from these types
//! - [`mod@load`]: reading the files into one plan
//! - [`mod@lint`]: what a plan says that cannot be, or that misses its own targets
//! - [`effective`]: every value that is in force, with where it comes from

mod commands;
pub mod effective;
mod excluded;
pub mod lint;
pub mod load;
mod mistake;
mod objectives;
mod secrets;
pub mod source;
#[cfg(test)]
mod tests;
pub mod types;
pub mod values;

pub use lint::{Finding, Host, Severity, lint};
pub use load::{Plan, load};
pub use mistake::Mistake;
pub use objectives::Objectives;
pub use source::{PlanFiles, SourceFile, SystemFiles};

/// The JSON Schema of a plan file, made from the types it is read into.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(types::PlanFile).to_value()
}
