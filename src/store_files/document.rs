//! A small JSON document with a checksum over its canonical text (spec 8.1).
//!
//! Owns the canonical text, the checksum, and reading under a bound on size. What the
//! members mean is the caller's. The checksum covers every member, known or not, so that
//! members that a later minor version adds are kept honest too; it does not cover spaces
//! and the order of members, so that a file that an editor laid out anew still counts.

use std::fmt::Write;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};

const SECTION: &str = "8.1";
const CHECKSUM: &str = "checksum";

/// The bytes of a document: canonical text with the checksum, and a line feed.
pub(crate) fn seal(value: &impl Serialize) -> Result<Vec<u8>> {
    let value = serde_json::to_value(value)
        .map_err(|error| Error::invalid(format!("cannot be written as JSON: {error}")))?;
    let Value::Object(mut members) = value else {
        return Err(Error::invalid("a document is a JSON object"));
    };
    let checksum = checksum_of(&members)?;
    members.insert(CHECKSUM.to_owned(), Value::String(checksum));
    let mut text = String::new();
    write_object(&mut text, &members)?;
    text.push('\n');
    Ok(text.into_bytes())
}

/// The members of a document without its checksum, which is right.
///
/// # Errors
///
/// `NotOurFile` for text that was never a document of this kind, `Corrupt` for one that
/// is damaged.
pub(super) fn unseal(bytes: &[u8], magic: &str) -> Result<Map<String, Value>> {
    let parsed = serde_json::from_slice::<Value>(bytes);
    let Ok(Value::Object(mut members)) = parsed else {
        return Err(refuse(bytes, magic, "not a JSON object"));
    };
    let Some(Value::String(stored)) = members.remove(CHECKSUM) else {
        return Err(refuse(bytes, magic, "no checksum"));
    };
    let found = checksum_of(&members)?;
    if stored != found {
        let message = format!("checksum of the members is {found}, the file says {stored:?}");
        return Err(refuse(bytes, magic, &message));
    }
    match members.get("magic") {
        Some(Value::String(text)) if text == magic => Ok(members),
        _ => Err(not_ours(magic)),
    }
}

/// The members as a value of a known shape. Members that it does not know are passed over.
pub(super) fn decode<T: DeserializeOwned>(members: Map<String, Value>) -> Result<T> {
    serde_json::from_value(Value::Object(members)).map_err(|error| {
        Error::corrupt(SECTION, format!("checksum is right, content is not: {error}"))
    })
}

/// Damage, or never ours? One flipped bit cannot hit both the magic and the name of the
/// checksum, and a crash may leave a file of ours empty or all zero.
fn refuse(bytes: &[u8], magic: &str, message: &str) -> Error {
    let holds =
        |needle: &str| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
    if bytes.iter().all(|byte| *byte == 0) || holds(magic) || holds("\"checksum\"") {
        Error::corrupt(SECTION, message)
    } else {
        not_ours(magic)
    }
}

fn not_ours(magic: &str) -> Error {
    Error::new(ErrorKind::NotOurFile, format!("not a file of this kind: expected magic {magic:?}"))
}

fn checksum_of(members: &Map<String, Value>) -> Result<String> {
    let mut text = String::new();
    write_object(&mut text, members)?;
    Ok(format!("{:08x}", crc32fast::hash(text.as_bytes())))
}

/// Members sorted here: the map of `serde_json` keeps the order of insertion as soon as
/// any crate of the build asks it to.
fn write_object(text: &mut String, members: &Map<String, Value>) -> Result<()> {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_unstable_by_key(|(name, _)| name.as_bytes());
    text.push('{');
    for (at, (name, value)) in sorted.into_iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        write_text(text, name);
        text.push(':');
        write_value(text, value)?;
    }
    text.push('}');
    Ok(())
}

fn write_value(text: &mut String, value: &Value) -> Result<()> {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(true) => text.push_str("true"),
        Value::Bool(false) => text.push_str("false"),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => text.push_str(&number.to_string()),
            (None, Some(number)) => text.push_str(&number.to_string()),
            (None, None) => {
                return Err(Error::corrupt(SECTION, format!("{number} is not an integer")));
            }
        },
        Value::String(string) => write_text(text, string),
        Value::Array(values) => {
            text.push('[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write_value(text, value)?;
            }
            text.push(']');
        }
        Value::Object(members) => write_object(text, members)?,
    }
    Ok(())
}

fn write_text(text: &mut String, string: &str) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\0'..='\x1f' => {
                // Writing to a `String` cannot fail.
                let _ = write!(text, "\\u{:04x}", u32::from(character));
            }
            _ => text.push(character),
        }
    }
    text.push('"');
}

/// Every single flipped bit and every cut of `bytes` must be refused by `read`, or
/// change nothing.
#[cfg(test)]
pub(super) fn check_damage<T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Result<T>,
) {
    let whole = read(bytes).expect("undamaged");
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        match read(&damaged) {
            Ok(value) => assert_eq!(value, whole, "bit {bit}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "bit {bit}: {error}"),
        }
    }
    for len in 0..bytes.len() - 1 {
        let result = read(&bytes[..len]);
        assert!(result.is_err(), "cut at {len}: {result:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(value: &Value) -> String {
        String::from_utf8(seal(value).unwrap()).unwrap()
    }

    #[test]
    fn canonical_text() {
        let value = json!({
            "zeta": [1, -2, u64::MAX, null, true],
            "magic": "m\u{1}\n\"\\/\u{e9}",
            "alpha": {"b": 1, "a": {}},
        });
        let body = "{\"alpha\":{\"a\":{},\"b\":1},\"magic\":\"m\\u0001\\u000a\\\"\\\\/\u{e9}\",\
                    \"zeta\":[1,-2,18446744073709551615,null,true]}";
        let crc = crc32fast::hash(body.as_bytes());
        let (before, after) = body.split_at(body.find("\"magic\"").unwrap());
        assert_eq!(text(&value), format!("{before}\"checksum\":\"{crc:08x}\",{after}\n"));
    }

    #[test]
    fn layout_does_not_matter() {
        let sealed = text(&json!({"magic": "m", "a": 1, "b": "x"}));
        let value: Value = serde_json::from_str(&sealed).unwrap();
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        assert_ne!(pretty, sealed);
        assert_eq!(
            unseal(pretty.as_bytes(), "m").unwrap(),
            unseal(sealed.as_bytes(), "m").unwrap()
        );
    }

    #[test]
    fn floats_are_refused() {
        assert!(seal(&json!({"magic": "m", "a": 1.5})).is_err());
        let error = unseal(b"{\"magic\":\"m\",\"a\":1.0,\"checksum\":\"00000000\"}", "m");
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn damaged_or_never_ours() {
        let kind = |bytes: &[u8]| unseal(bytes, "tally").unwrap_err().kind();
        assert_eq!(kind(b""), ErrorKind::Corrupt);
        assert_eq!(kind(&[0; 300]), ErrorKind::Corrupt);
        assert_eq!(kind(b"{\"magic\":\"tally\"}"), ErrorKind::Corrupt);
        assert_eq!(kind(b"{\"magic\":\"tally\",\"a\":"), ErrorKind::Corrupt);
        assert_eq!(kind(b"{\"name\":\"some-package\"}"), ErrorKind::NotOurFile);
        assert_eq!(kind(b"\x7fELF"), ErrorKind::NotOurFile);
        assert_eq!(kind(b"[1,2]"), ErrorKind::NotOurFile);
        assert_eq!(kind(text(&json!({"magic": "other"})).as_bytes()), ErrorKind::NotOurFile);
    }

    #[test]
    fn every_bit_counts() {
        let sealed = seal(&json!({"magic": "m", "number": 17, "text": "a b", "none": null}));
        check_damage(&sealed.unwrap(), |bytes| unseal(bytes, "m"));
    }

    proptest! {
        #[test]
        fn round_trip(name in "\\PC{0,8}", string in any::<String>(), number in any::<i64>()) {
            prop_assume!(name != "magic" && name != "checksum");
            let value = json!({"magic": "m", name: {"s": string, "n": [number]}});
            let members = unseal(&seal(&value).unwrap(), "m").unwrap();
            prop_assert_eq!(Value::Object(members), value);
        }

        #[test]
        fn anything_is_refused_calmly(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(unseal(&bytes, "m").is_err());
        }
    }
}
