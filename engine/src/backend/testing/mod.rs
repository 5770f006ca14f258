//! Backends that misbehave on purpose or tell what was asked of them, and the suite that all must pass.

pub mod conformance;
pub mod crash;
pub mod fault;
pub mod limited;
pub mod recording;
pub mod unflushed;

pub use crash::CrashBackend;
pub use fault::{Fault, FaultBackend, Faults, Moment};
pub use limited::LimitedBackend;
pub use recording::{Call, Recording, RecordingBackend};
pub use unflushed::UnflushedBackend;

/// The calls of a backend that can be failed and recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`super::Backend::list`].
    List,
    /// [`super::Backend::stat`].
    Stat,
    /// [`super::Backend::read`].
    Read,
    /// [`super::Backend::read_range`].
    ReadRange,
    /// [`super::Backend::create`].
    Create,
    /// [`super::Backend::replace`] and [`super::Staged::replace`].
    Replace,
    /// [`super::Backend::delete`].
    Delete,
    /// [`super::Backend::open`]. Reading from what was opened is a [`Operation::ReadRange`].
    Open,
    /// [`super::Backend::begin`] and [`super::Staged::write`]. Publishing is a [`Operation::Create`].
    Stage,
    /// [`super::Backend::flush`] of an object that is there already. Those that store one make it durable themselves.
    Flush,
}

impl Operation {
    /// Whether it changes what is stored.
    pub const fn is_mutation(self) -> bool {
        matches!(self, Self::Create | Self::Replace | Self::Delete)
    }

    /// The operation as a verb, for messages.
    pub const fn verb(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Stat => "look up",
            Self::Read | Self::ReadRange => "read",
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Delete => "delete",
            Self::Open => "open",
            Self::Stage => "write",
            Self::Flush => "flush",
        }
    }
}
