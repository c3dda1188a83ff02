//! How much memory an input takes.
//!
//! Owns the count and its bounds. The allocator of the fuzz targets reports to it; where nobody
//! does, as in tests, nothing is counted and no bound is passed.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What the allocator of this process counts with.
pub static METER: Meter = Meter::new();

/// A count of allocated bytes.
#[derive(Debug, Default)]
pub struct Meter {
    /// Allocated now.
    live: AtomicUsize,
    /// The most at one time since somebody asked.
    most: AtomicUsize,
}

impl Meter {
    /// A count that begins at nothing.
    pub const fn new() -> Self {
        Self { live: AtomicUsize::new(0), most: AtomicUsize::new(0) }
    }

    /// Notes that so many bytes were allocated.
    pub fn took(&self, bytes: usize) {
        let live = self.live.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
        self.most.fetch_max(live, Ordering::Relaxed);
    }

    /// Notes that so many bytes were given back.
    pub fn gave(&self, bytes: usize) {
        self.live.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Runs something that may take so many bytes at one time, beyond those that were taken
    /// before.
    ///
    /// # Panics
    ///
    /// When it takes more.
    pub fn bounded<T>(&self, what: &str, bytes: usize, run: impl FnOnce() -> T) -> T {
        let before = self.live.load(Ordering::Relaxed);
        let outer = self.most.swap(before, Ordering::Relaxed);
        let done = run();
        let most = self.most.fetch_max(outer, Ordering::Relaxed).saturating_sub(before);
        assert!(most <= bytes, "{what} took {most} bytes at one time, and may take {bytes}");
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_and_given_back_still_counts() {
        let meter = Meter::new();
        meter.bounded("outside", 150, || {
            meter.took(100);
            meter.bounded("inside", 40, || {
                meter.took(40);
                meter.gave(40);
            });
            meter.gave(100);
        });
        let run = || meter.bounded("more", 9, || meter.took(10));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        let run = || {
            meter.bounded("outside", 139, || {
                meter.bounded("inside", 140, || {
                    meter.took(140);
                    meter.gave(140);
                })
            })
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
    }
}
