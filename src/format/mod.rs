//! The layout of every stored structure: constants, encode, decode, versions, checksums.
//!
//! Slices in, values out. Knows nothing of files, clocks or threads, and does not choose
//! how a column is encoded. The text that this module implements is `format-spec/`;
//! numbers live in [`layout`] alone.
//!
//! ```text
//! header copy | header copy | frame | frame | ... | footer frame | trailer
//! 0             4096          8192                                 last 64 bytes
//! ```
//!
//! Everything decoded here comes from a file and is not trusted: a length is compared
//! with the bytes that are left before anything is allocated, and whatever the spec says
//! a reader must reject is an error.

pub(crate) mod checksum;
pub(crate) mod cursor;
pub(crate) mod directory;
pub(crate) mod footer;
pub(crate) mod frame;
pub(crate) mod header;
pub(crate) mod id;
pub(crate) mod layout;
pub(crate) mod order;
pub(crate) mod trailer;

#[cfg(test)]
pub(crate) mod spec_text;
