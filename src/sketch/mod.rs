//! Mergeable summaries of values: sums, zone maps, digests, membership filters.
//!
//! Build, merge, query, and check what comes from a file (spec 7). Knows nothing of rows
//! or files: values in, answers out, each with the error that it may have.

pub(crate) mod digest;
pub(crate) mod membership;
pub(crate) mod stats;
pub(crate) mod zone;
