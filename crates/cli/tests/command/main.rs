//! The command as its users see it: what it prints, and how it ends.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod damage;
mod dashboard;
mod demo;
mod export;
mod import;
mod inspect;
mod maintain;
mod query;
mod readers;
mod record;
mod support;
mod usage;
mod watch;
