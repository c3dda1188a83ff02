//! Text that may be compressed with gzip (RFC 1952), which its first bytes tell.
//!
//! Owns decompressing as it is read; how long lines may be is for `lines` and `scan` to say, so
//! that a small file which becomes a long text needs no more memory than the text would.

use std::io::{self, Cursor, Read};

use flate2::read::MultiGzDecoder;

/// What a compressed text begins with, and no other: the second byte is not one of UTF-8.
const MAGIC: [u8; 2] = [0x1F, 0x8B];

/// The source, with the bytes in front of it that were read to look at them.
type Whole<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// A source without its compression, if it has one. Several streams one after the other are
/// the text of all of them.
#[derive(Debug)]
pub(super) enum Unpacked<R> {
    /// As it is.
    Plain(Whole<R>),
    /// Compressed.
    Gzip(Box<MultiGzDecoder<Whole<R>>>),
}

impl<R: Read> Unpacked<R> {
    /// Reads the first bytes of `input`.
    pub(super) fn new(mut input: R) -> io::Result<Self> {
        let mut first = Vec::with_capacity(MAGIC.len());
        input.by_ref().take(MAGIC.len() as u64).read_to_end(&mut first)?;
        let is_packed = first == MAGIC;
        let whole = Cursor::new(first).chain(input);
        Ok(if is_packed {
            Self::Gzip(Box::new(MultiGzDecoder::new(whole)))
        } else {
            Self::Plain(whole)
        })
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer).map_err(damaged),
        }
    }
}

/// Tells a stream that is no good from a source that cannot be read: it is `InvalidData`.
fn damaged(cause: io::Error) -> io::Error {
    let is_ours = matches!(
        cause.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof
    );
    if !is_ours || cause.raw_os_error().is_some() {
        return cause;
    }
    let message = format!("not a whole gzip stream: {cause}, expected one as gzip -t accepts");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        Unpacked::new(bytes)?.read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn text_is_the_same_packed_or_not() {
        let long = b"some text, again and again\n".repeat(10_000);
        for text in [&b""[..], b"\x1f", b"a", b"a\n", b"\x1f\x8a\n", &long] {
            assert_eq!(read(text).unwrap(), text);
            assert_eq!(read(&packed(text)).unwrap(), text);
            let members = [packed(text), packed(b""), packed(text)].concat();
            assert_eq!(read(&members).unwrap(), [text, text].concat());
        }
    }

    #[test]
    fn every_prefix_and_every_changed_byte_is_an_error() {
        let text = b"timestamp,agent_id\n2026-01-01,a\n";
        let whole = packed(text);
        for end in MAGIC.len()..whole.len() {
            let error = read(&whole[..end]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{end}: {error}");
        }
        // The header has a time and names a system, which are of no account.
        for at in 10..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert!(read(&bytes).is_err(), "{at}");
        }
        let mut behind = whole.clone();
        behind.extend_from_slice(b"more");
        assert!(read(&behind).unwrap_err().to_string().contains("not a whole gzip stream"));
    }

    /// A source that fails is not taken for a stream that is damaged.
    #[test]
    fn errors_of_the_source_stay_what_they_are() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(5))
            }
        }
        let whole = packed(b"text");
        let mut input = Unpacked::new(whole[..8].chain(Failing)).unwrap();
        let error = input.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5));
    }
}
