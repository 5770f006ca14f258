//! The part of the check that knows what was verified before, and keeps what this check verified.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::backend::{self, Created, Folder, ObjectKey};
use crate::check::context::Context;
use crate::check::segments::KnownPack;
use crate::format::commit::Change;
use crate::format::ledger::{self, Ledger, Method, Verification};
use crate::format::record::RecordError;
use crate::format::tree::Timestamp;
use crate::ids::{LedgerId, PackId};
use crate::log::{self, Fold};
use crate::repo::{LedgerReadError, Repository, RepositoryError};

/// What was verified before, and what this check adds.
#[derive(Debug)]
pub(super) struct Verified {
    /// The ledger object that `ledger` was read from.
    id: Option<LedgerId>,
    ledger: Ledger,
    news: Vec<Verification>,
    /// When this check began.
    now: Timestamp,
}

/// Why a ledger was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl Verified {
    /// Reads the ledger that the log names. Another check may replace it meanwhile: then that one's.
    pub fn load(context: &Context<'_>, fold: &Fold) -> Self {
        let repository = context.repository;
        let now = (repository.environment().now)();
        let mut id = fold.ledger();
        let ledger = loop {
            let Some(named) = id else { break Ledger::default() };
            let message = match repository.read_ledger(&named) {
                Ok(ledger) => break ledger,
                Err(LedgerReadError::Backend(error)) if error.is_not_found() => {
                    let _unread = repository.refresh();
                    let newer = repository.fold();
                    if newer.seq() > fold.seq() && newer.ledger() != id {
                        id = newer.ledger();
                        continue;
                    }
                    error.to_string()
                }
                Err(LedgerReadError::Backend(error)) if !error.is_loss() => {
                    // Whoever writes another one in its place has to read it after all.
                    let message = format!("{error}; when packs were verified is not known to this check");
                    context.damage("ledger-damaged", &ObjectKey::ledger(&named), message);
                    id = None;
                    break Ledger::default();
                }
                Err(error) => error.to_string(),
            };
            let message = format!("{message}; when packs were verified is not known any more");
            context.damage("ledger-damaged", &ObjectKey::ledger(&named), message);
            break Ledger::default();
        };
        Self { id, ledger, news: Vec::new(), now }
    }

    /// Notes packs of which the ledger says that they were verified, and of which nobody else knows. What it says of them is gone by for
    /// nothing, and the next ledger leaves it out.
    pub fn note_strangers(&self, context: &Context<'_>, fold: &Fold, packs: &[KnownPack]) {
        let repository = context.repository;
        // A later ledger may name what only later commits know, and a part of the log does not tell what was pruned.
        let Some(id) = self.id.filter(|id| fold.ledger() == Some(*id) && !repository.is_salvaged()) else {
            return;
        };
        let mut strangers: BTreeSet<PackId> = self.ledger.entries().iter().map(|entry| entry.pack).collect();
        for pack in packs {
            strangers.remove(&pack.entry.id);
        }
        if strangers.is_empty() {
            return;
        }
        // What a prune takes away stays in the ledger until the next check.
        let (backend, keys) = (&**repository.backend(), repository.keys());
        let mut read = Fold::empty(fold.config());
        let result = log::read_to(backend, keys, &repository.id(), &mut read, fold.seq(), &mut |entry| {
            for change in entry.iter().flat_map(|entry| &entry.commit.changes) {
                if let Change::PacksCondemned { packs } = change {
                    strangers.retain(|pack| !packs.contains(pack));
                }
            }
        });
        if result.is_err() {
            return;
        }
        // One that is stored can be put back into the index.
        strangers.retain(|pack| matches!(backend::size_of(backend, &ObjectKey::pack(pack)), Ok(None)));
        let Some(first) = strangers.first() else { return };
        let more = match strangers.len() - 1 {
            0 => String::new(),
            more => format!(" and of {more} more"),
        };
        let message = format!(
            "it says that pack {first} was verified{more}, but neither the index nor the log knows of it, and it is not there: that counts \
             for nothing, and the next ledger leaves it out"
        );
        context.note("ledger-untrue", &ObjectKey::ledger(&id), message);
    }

    /// Packs are in doubt that were found damaged and not seen intact since: they are looked at again.
    pub fn mark_suspects(&self, packs: &mut [KnownPack]) {
        for pack in packs.iter_mut().filter(|pack| pack.stored.is_some()) {
            pack.is_suspect |= self.ledger.is_in_doubt(&pack.entry.id);
        }
    }

    /// When the pack was last verified by this method or a stronger one. A time to come is a wrong clock's: it says
    /// nothing, and least of all that there is no need to look.
    pub fn last(&self, pack: &PackId, method: Method) -> Option<Timestamp> {
        self.ledger.last(pack, method).map(|entry| entry.time).filter(|time| *time <= self.now)
    }

    /// How long ago that time was.
    pub fn age(&self, time: Timestamp) -> Duration {
        let seconds = self.now.seconds.saturating_sub(time.seconds);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    /// Adds verifications of this check.
    pub fn add(&mut self, method: Method, packs: impl IntoIterator<Item = (PackId, bool)>) {
        let time = self.now;
        self.news.extend(packs.into_iter().map(|(pack, is_intact)| Verification {
            pack,
            method,
            is_intact,
            time,
        }));
    }

    /// Packs never read in whole, and the one whose last reading is the longest ago.
    pub fn oldest(&self, packs: &[KnownPack]) -> (u64, Option<(PackId, Timestamp)>) {
        let ledger = self.ledger.after(&self.news, &|_| true);
        let mut never = 0;
        let mut oldest: Option<(PackId, Timestamp)> = None;
        for id in packs.iter().map(|pack| pack.entry.id) {
            match ledger.last(&id, Method::Read).map(|entry| entry.time).filter(|time| *time <= self.now) {
                None => never += 1,
                Some(time) if oldest.is_none_or(|(_, earliest)| time < earliest) => oldest = Some((id, time)),
                Some(_) => {}
            }
        }
        (never, oldest)
    }

    /// Writes the ledger of the packs that the index lists. If another check came first, on top of its ledger.
    ///
    /// Ledgers that checks left behind uncommitted are deleted here. Those that were listed before our commit replaced
    /// the ledger cannot be committed after it: whoever stored one finds another than it read, and stores a new one.
    pub fn write(mut self, repository: &Repository, packs: &[KnownPack]) -> Result<(), WriteError> {
        if self.news.is_empty() {
            return Ok(());
        }
        let is_known = |id: &PackId| packs.binary_search_by_key(id, |pack| pack.entry.id).is_ok();
        let backend = &**repository.backend();
        repository.refresh()?;
        loop {
            let current = repository.fold().ledger();
            if current != self.id {
                self.ledger = match &current {
                    Some(id) => repository.ledger_to_replace(id)?,
                    None => Ledger::default(),
                };
                self.id = current;
            }
            let mut listed = Vec::new();
            backend
                .list(Folder::Ledger, None, &mut |info| {
                    listed.extend(info.key.is_well_formed().then_some(info.key));
                    std::ops::ControlFlow::Continue(())
                })
                .map_err(RepositoryError::from)?;
            let object = self.ledger.after(&self.news, &is_known).seal(&repository.sealer())?;
            let (ledger, previous) = (ledger::id(&object), self.id);
            let key = ObjectKey::ledger(&ledger);
            let Created::New = backend.create(&key, &object).map_err(RepositoryError::from)? else {
                continue;
            };
            if let Some(cover) = repository.cover() {
                cover.object(backend, &key);
            }
            let mut is_ours = false;
            repository.commit(&mut |fold| {
                is_ours = fold.ledger() == previous;
                Ok(if is_ours { vec![Change::LedgerReplaced { ledger, previous }] } else { Vec::new() })
            })?;
            if is_ours {
                // What cannot be deleted now is listed and deleted by the next check.
                for old in listed {
                    let _left = repository.delete_object(&old);
                }
                return Ok(());
            }
            repository.delete_object(&key).map_err(RepositoryError::from)?;
        }
    }
}
