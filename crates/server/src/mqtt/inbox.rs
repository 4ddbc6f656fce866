//! What other threads have for a shard: a queue with one reader that is woken only when it sleeps.
//!
//! For: the committer's deliveries and other shards' messages, in the order they were put in.
//! Not for: deciding anything. Called by: `shard` (reads), `commits` and other shards (write).
//! Holds: a writer never waits. What bounds the queue is that a congested inbox stops the shards
//! that feed it from reading their sockets ([`Inbox::congested`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Items in an inbox from which on those who feed it stop reading sockets. One item is one batch.
const ITEMS_MAX: usize = 1024;
/// And bytes of the messages in them. The last batch may pass it.
const BYTES_MAX: usize = 8 << 20;

/// What a queue of it must be bounded by besides its number.
pub(crate) trait Weigh {
    /// Bytes of memory that it keeps until it is handled.
    fn bytes(&self) -> usize;
}

/// One shard's queue of `T`.
pub(crate) struct Inbox<T> {
    state: Mutex<State<T>>,
    congested: AtomicBool,
}

struct State<T> {
    mail: Vec<T>,
    bytes: usize,
    /// Set only while the reader sleeps.
    reader: Option<Waker>,
}

impl<T: Weigh> State<T> {
    fn put(&mut self, mail: impl IntoIterator<Item = T>) {
        let before = self.mail.len();
        self.mail.extend(mail);
        let new = self.mail.get(before..).unwrap_or_default();
        self.bytes += new.iter().map(Weigh::bytes).sum::<usize>();
    }

    fn is_congested(&self) -> bool {
        self.mail.len() >= ITEMS_MAX || self.bytes >= BYTES_MAX
    }
}

impl<T: Weigh> Inbox<T> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                mail: Vec::new(),
                bytes: 0,
                reader: None,
            }),
            congested: AtomicBool::new(false),
        }
    }

    /// Puts `mail` behind what is there, and wakes the reader when it sleeps.
    pub(crate) fn put(&self, mail: impl IntoIterator<Item = T>) {
        let reader = {
            let mut state = self.lock();
            state.put(mail);
            self.congested
                .store(state.is_congested(), Ordering::Relaxed);
            if state.mail.is_empty() {
                None
            } else {
                state.reader.take()
            }
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Puts each of `batches` into its inbox, all at one moment: no reader sees its part, and acts
    /// on it towards another, before the other has its own.
    pub(crate) fn put_together(inboxes: &[Self], batches: Vec<Vec<T>>) {
        // In the order of the indices, as every caller: nobody else holds two of these locks.
        let mut states: Vec<_> = inboxes.iter().map(Self::lock).collect();
        let mut readers = Vec::new();
        for ((inbox, state), batch) in inboxes.iter().zip(&mut states).zip(batches) {
            if !batch.is_empty() {
                state.put(batch);
                inbox
                    .congested
                    .store(state.is_congested(), Ordering::Relaxed);
                readers.extend(state.reader.take());
            }
        }
        drop(states);
        for reader in readers {
            reader.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves everything to the empty `into`, or registers the reader for the next `put`. Whether the
    /// inbox was congested until now: those who hold for it are to be told.
    pub(crate) fn poll_take(&self, cx: &Context<'_>, into: &mut Vec<T>) -> Poll<bool> {
        debug_assert!(into.is_empty(), "what was taken before is not yet handled");
        let mut state = self.lock();
        if state.mail.is_empty() {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        std::mem::swap(&mut state.mail, into);
        state.bytes = 0;
        // Under the lock: a `put` just before this is among what is taken.
        Poll::Ready(self.congested.swap(false, Ordering::Relaxed))
    }

    /// Whether the shards that feed this inbox should stop reading from their sockets.
    pub(crate) fn congested(&self) -> bool {
        self.congested.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    use super::*;

    impl Weigh for u32 {
        fn bytes(&self) -> usize {
            *self as usize
        }
    }

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn sleeping_reader_is_woken_once_and_a_busy_one_not_at_all() {
        let (inbox, count) = (Inbox::new(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let mut taken = Vec::new();
        inbox.put([1]);
        assert!(inbox.poll_take(&cx, &mut taken).is_ready());
        assert_eq!(count.0.load(Ordering::Relaxed), 0, "nobody slept");
        taken.clear();
        assert!(inbox.poll_take(&cx, &mut taken).is_pending());
        inbox.put([2]);
        inbox.put([3, 4]);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(inbox.poll_take(&cx, &mut taken).is_ready());
        assert_eq!(taken, [2, 3, 4]);
    }

    #[test]
    fn no_reader_sees_its_part_before_the_others_have_theirs() {
        let inboxes: Arc<[Inbox<u32>]> = (0..2).map(|_| Inbox::new()).collect();
        // Whoever reads the first inbox at the earliest moment finds the second one filled.
        struct Look(Arc<[Inbox<u32>]>, AtomicU32);
        impl Wake for Look {
            fn wake(self: Arc<Self>) {
                self.1.store(
                    u32::try_from(self.0[1].lock().mail.len()).unwrap(),
                    Ordering::Relaxed,
                );
            }
        }
        let look = Arc::new(Look(Arc::clone(&inboxes), AtomicU32::new(0)));
        let waker = Waker::from(Arc::clone(&look));
        let mut taken = Vec::new();
        assert!(
            inboxes[0]
                .poll_take(&Context::from_waker(&waker), &mut taken)
                .is_pending()
        );
        Inbox::put_together(&inboxes, vec![vec![1], vec![2]]);
        assert_eq!(look.1.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn inbox_that_nobody_reads_is_congested_by_its_items_and_by_their_bytes() {
        let few = u32::try_from(BYTES_MAX / 2).unwrap();
        for (fill, last) in [(vec![0; ITEMS_MAX - 1], 0), (vec![few], few)] {
            let inbox = Inbox::new();
            inbox.put(fill.clone());
            assert!(!inbox.congested());
            inbox.put([last]);
            assert!(inbox.congested());
            let mut taken = Vec::new();
            let cx = Context::from_waker(Waker::noop());
            assert_eq!(inbox.poll_take(&cx, &mut taken), Poll::Ready(true));
            assert!(!inbox.congested());
            inbox.put(fill);
            assert!(!inbox.congested(), "what was taken does not count");
            taken.clear();
            assert_eq!(inbox.poll_take(&cx, &mut taken), Poll::Ready(false));
        }
    }
}
