//! Which local user and group a recorded owner is.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use nix::unistd::{Group, User};

/// Names kept before the cache starts afresh: a hostile tree may hold millions.
const CACHED_NAMES: usize = 4096;

/// The accounts of a system, by name.
pub trait Accounts: Send + Sync {
    /// Number of the user `name`, if there is such a user.
    fn user(&self, name: &str) -> Option<u32>;
    /// Number of the group `name`, if there is such a group.
    fn group(&self, name: &str) -> Option<u32>;
}

/// The accounts of this machine. A database that cannot be asked counts as not knowing the name.
#[derive(Debug, Clone, Copy)]
pub struct LocalAccounts;

impl Accounts for LocalAccounts {
    fn user(&self, name: &str) -> Option<u32> {
        User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
    }

    fn group(&self, name: &str) -> Option<u32> {
        Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
    }
}

/// Looks every name up once.
pub(super) struct OwnerMap {
    accounts: Box<dyn Accounts>,
    users: Mutex<HashMap<Box<str>, Option<u32>>>,
    groups: Mutex<HashMap<Box<str>, Option<u32>>>,
}

impl OwnerMap {
    pub(super) fn new(accounts: Box<dyn Accounts>) -> Self {
        Self { accounts, users: Mutex::default(), groups: Mutex::default() }
    }

    /// The local number of the user `name`, `recorded` if there is none or no name is known.
    pub(super) fn user(&self, name: &str, recorded: u32) -> u32 {
        cached(&self.users, name, |name| self.accounts.user(name)).unwrap_or(recorded)
    }

    /// The local number of the group `name`, `recorded` if there is none or no name is known.
    pub(super) fn group(&self, name: &str, recorded: u32) -> u32 {
        cached(&self.groups, name, |name| self.accounts.group(name)).unwrap_or(recorded)
    }
}

fn cached<V: Copy>(
    cache: &Mutex<HashMap<Box<str>, Option<V>>>,
    name: &str,
    look_up: impl FnOnce(&str) -> Option<V>,
) -> Option<V>
where
    Box<str>: Hash + Eq,
{
    if name.is_empty() {
        return None;
    }
    let mut known = cache.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(answer) = known.get(name) {
        return *answer;
    }
    let answer = look_up(name);
    if known.len() >= CACHED_NAMES {
        known.clear();
    }
    known.insert(name.into(), answer);
    answer
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Counting(Arc<AtomicU32>);

    impl Accounts for Counting {
        fn user(&self, name: &str) -> Option<u32> {
            self.0.fetch_add(1, Ordering::Relaxed);
            (name == "anna").then_some(7)
        }

        fn group(&self, name: &str) -> Option<u32> {
            self.0.fetch_add(1, Ordering::Relaxed);
            (name == "staff").then_some(8)
        }
    }

    #[test]
    fn names_win_over_numbers_unknown_names_do_not_and_each_is_asked_once() {
        let asked = Arc::new(AtomicU32::new(0));
        let owners = OwnerMap::new(Box::new(Counting(Arc::clone(&asked))));
        for _ in 0..3 {
            assert_eq!(owners.user("anna", 1000), 7);
            assert_eq!(owners.user("nobody knows", 1001), 1001);
            assert_eq!(owners.user("", 1002), 1002);
            assert_eq!(owners.group("staff", 50), 8);
            assert_eq!(owners.group("anna", 51), 51);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn many_names_do_not_pile_up() {
        let owners = OwnerMap::new(Box::new(Counting(Arc::default())));
        for number in 0..3 * CACHED_NAMES {
            owners.user(&format!("user {number}"), 1);
        }
        assert!(owners.users.lock().unwrap().len() <= CACHED_NAMES);
    }

    #[test]
    fn the_local_system_knows_root() {
        assert_eq!(LocalAccounts.user("root"), Some(0));
        assert_eq!(LocalAccounts.user("no such user, surely"), None);
    }
}
