//! The write path: door, buffer, channel, committer; and the import transaction.
//!
//! ```text
//! Appender -> Door -> Slot (buffer) -> Gate (bounded channel) -> Committer -> active segments
//! ```
//!
//! Owns accepted rows until they are committed. Knows nothing of sealed data but the call
//! that seals, and nothing of queries.

pub(crate) mod appender;
pub(crate) mod buffer;
pub(crate) mod channel;
pub(crate) mod committer;
pub(crate) mod transaction;
