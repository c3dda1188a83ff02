//! Locks, threads and channels between the threads of a store.
//!
//! Owns the choice of them: the standard library's and crossbeam's, or, with the feature
//! `shuttle`, those whose schedule a model chooses, so that the models (`tests/models.rs`) run
//! the engine's own code. Whatever is held or waited for while files are touched comes from
//! here; counters and caches that nobody waits for do not need it.

#[cfg(not(feature = "shuttle"))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};

#[cfg(not(feature = "shuttle"))]
pub(crate) use crossbeam_channel as channel;
#[cfg(feature = "shuttle")]
pub(crate) use modelled as channel;
#[cfg(feature = "shuttle")]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};

/// The channel of models: as crossbeam's, under the model's lock. There is no time: who waits
/// for a while waits until something comes, or not at all, by chance.
#[cfg(feature = "shuttle")]
pub(crate) mod modelled {
    use std::collections::VecDeque;
    use std::fmt;
    use std::sync::Arc;
    use std::time::Duration;

    pub(crate) use crossbeam_channel::{
        RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
    };
    use shuttle::rand::Rng as _;
    use shuttle::sync::{Condvar, Mutex, MutexGuard};

    struct State<T> {
        queue: VecDeque<T>,
        senders: usize,
        has_receiver: bool,
    }

    struct Shared<T> {
        capacity: usize,
        state: Mutex<State<T>>,
        changed: Condvar,
    }

    impl<T> Shared<T> {
        fn lock(&self) -> MutexGuard<'_, State<T>> {
            self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }

        fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
            self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    fn times_out() -> bool {
        shuttle::rand::thread_rng().gen_bool(0.5)
    }

    /// The sending side.
    pub(crate) struct Sender<T>(Arc<Shared<T>>);

    /// The receiving side; there is one.
    pub(crate) struct Receiver<T>(Arc<Shared<T>>);

    impl<T> fmt::Debug for Sender<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Sender")
        }
    }

    /// A channel of at most so many messages.
    pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        let state = State { queue: VecDeque::new(), senders: 1, has_receiver: true };
        let shared = Shared { capacity, state: Mutex::new(state), changed: Condvar::new() };
        let shared = Arc::new(shared);
        (Sender(Arc::clone(&shared)), Receiver(shared))
    }

    impl<T> Sender<T> {
        fn put(&self, message: T, gives_up: impl Fn() -> bool) -> Result<(), SendTimeoutError<T>> {
            let mut state = self.0.lock();
            loop {
                if !state.has_receiver {
                    return Err(SendTimeoutError::Disconnected(message));
                }
                if state.queue.len() < self.0.capacity {
                    state.queue.push_back(message);
                    self.0.changed.notify_all();
                    return Ok(());
                }
                if gives_up() {
                    return Err(SendTimeoutError::Timeout(message));
                }
                state = self.0.wait(state);
            }
        }

        pub(crate) fn send(&self, message: T) -> Result<(), SendError<T>> {
            self.put(message, || false).map_err(|error| SendError(error.into_inner()))
        }

        pub(crate) fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
            self.put(message, || true).map_err(|error| match error {
                SendTimeoutError::Timeout(message) => TrySendError::Full(message),
                SendTimeoutError::Disconnected(message) => TrySendError::Disconnected(message),
            })
        }

        pub(crate) fn send_timeout(
            &self,
            message: T,
            _: Duration,
        ) -> Result<(), SendTimeoutError<T>> {
            self.put(message, times_out)
        }
    }

    impl<T> Receiver<T> {
        fn take(&self, gives_up: impl Fn() -> bool) -> Result<T, RecvTimeoutError> {
            let mut state = self.0.lock();
            loop {
                if let Some(message) = state.queue.pop_front() {
                    self.0.changed.notify_all();
                    return Ok(message);
                }
                if state.senders == 0 {
                    return Err(RecvTimeoutError::Disconnected);
                }
                if gives_up() {
                    return Err(RecvTimeoutError::Timeout);
                }
                state = self.0.wait(state);
            }
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.0.lock().queue.is_empty()
        }

        pub(crate) fn recv(&self) -> Result<T, RecvError> {
            self.take(|| false).map_err(|_| RecvError)
        }

        pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
            self.take(|| true).map_err(|error| match error {
                RecvTimeoutError::Timeout => TryRecvError::Empty,
                RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
            })
        }

        pub(crate) fn recv_timeout(&self, _: Duration) -> Result<T, RecvTimeoutError> {
            self.take(times_out)
        }
    }

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            self.0.lock().senders += 1;
            Self(Arc::clone(&self.0))
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.lock().senders -= 1;
            self.0.changed.notify_all();
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            let mut state = self.0.lock();
            state.has_receiver = false;
            let unheard = std::mem::take(&mut state.queue);
            drop(state);
            self.0.changed.notify_all();
            // What waits for an answer in them gets none.
            drop(unheard);
        }
    }
}
