//! What a process can be told to do, and how often which of it is.

use std::time::Duration;

use super::random::Random;
use super::world::{self, Who};

/// A command.
#[derive(Debug, Clone, Copy)]
pub enum Command {
    BackUp(usize),
    BackUpDirectory(usize),
    /// One of the snapshots there are then.
    Forget(u64),
    Prune(Duration),
    Check {
        is_deep: bool,
    },
    /// A backup with an append-only password.
    Append(usize),
    /// The same of a directory.
    AppendDirectory(usize),
    /// Something untrue, with another append-only password.
    Lie,
    /// All live snapshots.
    Read,
    /// The same, to a real directory.
    Restore,
    /// All of a series but the last one, and those that are held.
    ForgetByPolicy,
    /// One of the snapshots there are then.
    Hold(u64),
    /// The same of those that are held then.
    Release(u64),
    AddParity,
    DropParity,
    RepairIndex,
    RepairPacks {
        is_thorough: bool,
    },
    RepairLost,
    RepairSnapshots,
    /// One of another repository's snapshots, or all of them.
    CopyIn(Option<u64>),
    /// All snapshots there are, to another repository.
    CopyOut,
    AddPassword,
    /// One of those that were added.
    RemovePassword(u64),
    /// The same.
    ChangePassword(u64),
}

/// What a seed's commands are drawn from.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    pub with_directories: bool,
    pub with_appenders: bool,
    /// Also the rarer ones.
    pub with_upkeep: bool,
    /// Also those that change who can open the repository: each takes as long as guessing a password does.
    pub with_passwords: bool,
}

impl Choice {
    /// One of many.
    pub fn command(self, random: &mut Random) -> Command {
        // Most of what upkeep does shows only while others back up and prune.
        if self.with_upkeep && random.below(2) == 0 {
            return self.upkeep(random);
        }
        if self.with_appenders { self.with_appenders(random) } else { self.usual(random) }
    }

    /// Directories only if they are wanted.
    fn usual(self, random: &mut Random) -> Command {
        match random.below(14) {
            0..=3 if self.with_directories => Command::BackUpDirectory(random.index(world::DIRECTORIES)),
            0..=5 => Command::BackUp(random.index(world::CONTENTS)),
            6..=7 => Command::Forget(random.below(1000)),
            8..=10 => {
                Command::Prune(random.pick(&[Duration::ZERO, Duration::ZERO, Duration::from_secs(3600)]))
            }
            11..=12 => Command::Check { is_deep: random.below(2) == 0 },
            _ if self.with_directories => Command::Restore,
            _ => Command::Read,
        }
    }

    fn with_appenders(self, random: &mut Random) -> Command {
        match random.below(6) {
            0 if self.with_directories => Command::AppendDirectory(random.index(world::DIRECTORIES)),
            0..=1 => Command::Append(random.index(world::CONTENTS)),
            2 => Command::Lie,
            _ => self.usual(random),
        }
    }

    fn upkeep(self, random: &mut Random) -> Command {
        match random.below(if self.with_passwords { 26 } else { 20 }) {
            0..=3 => Command::Hold(random.below(1000)),
            4..=5 => Command::Release(random.below(1000)),
            6 => Command::ForgetByPolicy,
            7..=8 => Command::AddParity,
            9 => Command::DropParity,
            10..=11 => Command::RepairIndex,
            12..=13 => Command::RepairPacks { is_thorough: random.below(2) == 0 },
            14..=15 => Command::RepairLost,
            16 => Command::RepairSnapshots,
            17 => Command::CopyIn(None),
            18 => Command::CopyIn(Some(random.below(1000))),
            19 => Command::CopyOut,
            20..=22 => Command::AddPassword,
            23 => Command::RemovePassword(random.below(1000)),
            _ => Command::ChangePassword(random.below(1000)),
        }
    }
}

impl Command {
    /// Whose password it takes.
    pub fn who(self) -> Who {
        match self {
            Self::Append(_) | Self::AppendDirectory(_) => Who::Appender,
            Self::Lie => Who::Liar,
            _ => Who::Full,
        }
    }
}
