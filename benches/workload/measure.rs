//! Timing: how often, and what of it counts.

use std::time::{Duration, Instant};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) runs_min: usize,
    pub(crate) runs_max: usize,
    pub(crate) budget: Duration,
}

impl Effort {
    /// A second for each figure, and five runs at least; `smoke`: three runs.
    pub(crate) fn new(smoke: bool) -> Self {
        if smoke {
            Self { runs_min: 3, runs_max: 3, budget: Duration::ZERO }
        } else {
            Self { runs_min: 5, runs_max: 2_000, budget: Duration::from_secs(1) }
        }
    }

    /// Runs of something that takes a good part of a second.
    pub(crate) fn long_runs(self) -> usize {
        self.runs_min.min(3)
    }

    /// Repeats, after one run that warms up.
    pub(crate) fn repeat(self, mut run: impl FnMut() -> Duration) -> Timing {
        run();
        let mut took = Vec::new();
        let start = Instant::now();
        while took.len() < self.runs_min
            || (took.len() < self.runs_max && start.elapsed() < self.budget)
        {
            took.push(run());
        }
        Timing::of(took)
    }
}

/// Ascending times of runs.
#[derive(Clone, Debug)]
pub(crate) struct Timing(Vec<Duration>);

impl Timing {
    pub(crate) fn of(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        Self(took)
    }

    pub(crate) fn runs(&self) -> usize {
        self.0.len()
    }

    /// Milliseconds of the shortest run.
    pub(crate) fn min_ms(&self) -> f64 {
        millis(self.0[0])
    }

    /// Milliseconds of the run in the middle.
    pub(crate) fn median_ms(&self) -> f64 {
        self.permille_ms(500)
    }

    /// Milliseconds that so many of a thousand runs stay below.
    pub(crate) fn permille_ms(&self, permille: usize) -> f64 {
        millis(self.0[(self.0.len() * permille / 1_000).min(self.0.len() - 1)])
    }
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// How long it takes.
pub(crate) fn timed<T>(run: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    std::hint::black_box(run());
    start.elapsed()
}
