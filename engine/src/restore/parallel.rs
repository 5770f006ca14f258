//! Threads that share out numbered pieces of work.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Calls `act` with every number below `count`, in roughly ascending order, on as many threads as there are
/// `workers`; each call has one of them to itself.
pub(super) fn in_parallel<W: Send>(workers: &mut [W], count: usize, act: &(dyn Fn(&mut W, usize) + Sync)) {
    let next = AtomicUsize::new(0);
    let work = |worker: &mut W| {
        loop {
            let index = next.fetch_add(1, Relaxed);
            if index >= count {
                break;
            }
            act(worker, index);
        }
    };
    // More threads than pieces would only be started to end.
    match workers {
        [] => {}
        [only] => work(only),
        [first, rest @ ..] => std::thread::scope(|scope| {
            for worker in rest.iter_mut().take(count.saturating_sub(1)) {
                scope.spawn(|| work(worker));
            }
            work(first);
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once() {
        for threads in [1, 2, 7] {
            let mut workers = vec![Vec::new(); threads];
            in_parallel(&mut workers, 100, &|done: &mut Vec<usize>, index| done.push(index));
            let mut all = workers.concat();
            all.sort_unstable();
            assert_eq!(all, (0..100).collect::<Vec<_>>());
        }
    }
}
