//! The proof of the promises: workloads whose rows say what they must be, faults of every kind
//! done to them, and checks of what is left.
//!
//! Owns the checks that tests run a little of and campaigns (`benches/trust`) run for hours.
//! A check returns what it counted, or the [`Violation`] that it found; it panics never, so
//! that a campaign goes on and a planted bug shows as what it does. Real file systems,
//! processes and SQLite are the campaigns' own.

pub mod calls;
pub mod crash;
pub mod damage;
pub mod operations;
pub mod rows;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, ErrorKind};

/// A promise that did not hold, and the story of how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    story: String,
    kind: Option<ErrorKind>,
}

impl Violation {
    /// A violation, in words.
    pub fn new(story: impl Into<String>) -> Self {
        Self { story: story.into(), kind: None }
    }

    /// The kind of the store's error, where that is what did not hold.
    pub fn kind(&self) -> Option<ErrorKind> {
        self.kind
    }

    /// With what led to it in front.
    #[must_use]
    pub fn after(self, story: &str) -> Self {
        Self { story: format!("{story}: {}", self.story), ..self }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.story)
    }
}

impl From<Error> for Violation {
    fn from(error: Error) -> Self {
        Self { story: error.to_string(), kind: Some(error.kind()) }
    }
}

/// What a check comes to.
pub type Verdict<T = ()> = Result<T, Violation>;

/// A violation unless `holds`.
///
/// # Errors
///
/// The violation.
pub fn ensure(holds: bool, story: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Violation::new(story())) }
}

/// Runs a check; a panic inside is a violation like any other.
///
/// # Errors
///
/// As the check.
pub fn guarded<T>(check: impl FnOnce() -> Verdict<T>) -> Verdict<T> {
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Violation::new(format!("a panic: {}", text.unwrap_or("without a message"))))
    })
}
