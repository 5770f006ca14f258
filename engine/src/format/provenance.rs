//! What a plan says of a snapshot that it ordered: of which domain it is, and under which circumstances it was made.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::ids::PlanHash;

/// Where a snapshot comes from, beyond host and paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The domain of the plan.
    pub domain: String,
    /// How the parts of the snapshot belong together.
    pub consistency: Consistency,
    /// The plan.
    pub plan: PlanHash,
    /// The plan's files, as paths in the snapshot, the main one first.
    pub plan_files: Vec<ByteBuf>,
    /// What was found out about the systems the data is from, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<Fact>,
}

/// How the parts of a snapshot belong together, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// They are of different moments.
    Fuzzy,
    /// They are of one moment, as after a power cut.
    Crash,
    /// They are as their application hands them out.
    Application,
}

/// Something that was found out: a server's version, a program's revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// Its name.
    pub name: String,
    /// What it was.
    pub value: String,
}

impl Provenance {
    /// Most facts of a snapshot.
    pub const FACTS_MAX: usize = 64;
    /// Longest value of a fact; of a longer one a plan keeps the beginning and a hash.
    pub const FACT_LEN_MAX: usize = 4096;
}
