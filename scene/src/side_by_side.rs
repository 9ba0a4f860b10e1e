//! Runs independent plays concurrently: most of a play is waiting, for a timer or for another
//! process.

use std::{
    sync::{Mutex, PoisonError},
    thread,
};

/// Maps each item, at most `at_once_max` at a time. The results keep the order of the items.
pub fn each<T: Send, R: Send>(
    items: Vec<T>,
    at_once_max: u32,
    act: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let waiting = Mutex::new(items.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    let work = || {
        loop {
            let next = waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .next();
            let Some((index, item)) = next else { return };
            let result = act(item);
            done.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((index, result));
        }
    };
    thread::scope(|scope| {
        for _ in 0..at_once_max.max(1) {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _result)| *index);
    done.into_iter().map(|(_index, result)| result).collect()
}

/// Maps all items at the same time; fails with the first error.
pub fn all<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    act: impl Fn(T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let items: Vec<T> = items.into_iter().collect();
    let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
    each(items, count, act).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn each_item_is_done_once_in_order_and_no_more_than_so_many_at_a_time() {
        let (running, most) = (AtomicU32::new(0), AtomicU32::new(0));
        let act = |item: u64| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::sleep(std::time::Duration::from_millis(30 - item));
            running.fetch_sub(1, Ordering::SeqCst);
            item * 2
        };
        let items: Vec<u64> = (0..20).collect();
        let doubled: Vec<u64> = items.iter().map(|item| item * 2).collect();
        assert_eq!(each(items.clone(), 3, act), doubled);
        assert_eq!(most.swap(0, Ordering::SeqCst), 3);
        assert_eq!(each(items, 0, act), doubled);
        assert_eq!(most.into_inner(), 1);
    }
}
