//! `alerts.json`: the states of alerts, and `alerts.lock`: who keeps them (spec 8.12).
//!
//! One process keeps the states, the one that holds the lock, which is the operating system's
//! on an open file. Everybody else may read them. They can be lost: alerts then begin anew.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{document, if_present, try_lock_file};
use crate::error::{Error, Result};
use crate::fs::{File, FileSystem, publish, read_whole};
use crate::limits::{ALERT_NAME_BYTES_MAX, ALERT_RULES_MAX};
use crate::time::Timestamp;

/// Name of the file.
pub(crate) const NAME: &str = "alerts.json";
const LOCK_NAME: &str = "alerts.lock";
const MAGIC: &str = "tallystone alerts";
const SECTION: &str = "8.12";
const BYTES_MAX: u64 = 1 << 20;

/// How far an alert has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All is well, or there is nothing to judge.
    #[default]
    Inactive,
    /// Beyond the bound, not yet for as long as the rule allows.
    Pending,
    /// Beyond the bound for that long.
    Firing,
    /// It has fired, and is over.
    Resolved,
}

impl State {
    /// Name, as it is stored and printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// The state of one alert, and since when it has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AlertState {
    /// Name of its rule.
    pub(crate) name: String,
    /// Its state.
    pub(crate) state: State,
    /// Since when.
    pub(crate) since: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct AlertsDocument {
    magic: String,
    alerts: Vec<AlertDocument>,
}

#[derive(Serialize, Deserialize)]
struct AlertDocument {
    name: String,
    state: State,
    since: i64,
}

/// The right to keep the states of one store; let go when dropped.
#[derive(Debug)]
pub(crate) struct AlertsLock {
    _file: Arc<dyn File>,
}

/// Takes the lock of the store in `dir` without waiting; `None` where somebody has it.
pub(crate) fn try_alerts_lock(fs: &dyn FileSystem, dir: &Path) -> Result<Option<AlertsLock>> {
    Ok(try_lock_file(fs, dir, LOCK_NAME)?.map(|file| AlertsLock { _file: file }))
}

/// Reads the states of the store in `dir`; none where nobody has kept any.
///
/// # Errors
///
/// `Corrupt` where they are damaged; `Io`.
pub(crate) fn read(fs: &dyn FileSystem, dir: &Path) -> Result<Vec<AlertState>> {
    let path = dir.join(NAME);
    let Some(bytes) = if_present(read_whole(fs, &path, BYTES_MAX))? else { return Ok(Vec::new()) };
    decode(&bytes).map_err(|error| error.with_path(&path))
}

/// Replaces the states of the store in `dir`; durable on return. The caller holds the lock.
pub(crate) fn write(fs: &dyn FileSystem, dir: &Path, states: &[AlertState]) -> Result<()> {
    publish(fs, dir, NAME, &encode(states)?, true)
}

/// The bytes of `alerts.json`.
pub(crate) fn encode(states: &[AlertState]) -> Result<Vec<u8>> {
    let alerts = states.iter().map(|alert| AlertDocument {
        name: alert.name.clone(),
        state: alert.state,
        since: alert.since.as_micros(),
    });
    document::seal(&AlertsDocument { magic: MAGIC.to_owned(), alerts: alerts.collect() })
}

/// Reads what [`encode`] writes.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<AlertState>> {
    let found: AlertsDocument = document::decode(document::unseal(bytes, MAGIC)?)?;
    let count = found.alerts.len();
    if count > ALERT_RULES_MAX {
        return Err(Error::corrupt(SECTION, format!("{count} alerts, more than there can be")));
    }
    let alert = |found: AlertDocument| {
        if found.name.is_empty() || found.name.len() > ALERT_NAME_BYTES_MAX {
            let bytes = found.name.len();
            return Err(Error::corrupt(SECTION, format!("an alert's name of {bytes} bytes")));
        }
        let since = Timestamp::from_micros(found.since)
            .map_err(|error| Error::corrupt(SECTION, error.message()))?;
        Ok(AlertState { name: found.name, state: found.state, since })
    };
    found.alerts.into_iter().map(alert).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::OsFileSystem;

    const FS: OsFileSystem = OsFileSystem;

    fn sample() -> Vec<AlertState> {
        let since = Timestamp::parse("2026-11-23T10:00:00Z").unwrap();
        vec![
            AlertState { name: "queue-backlog".to_owned(), state: State::Firing, since },
            AlertState { name: "success-rate".to_owned(), state: State::Inactive, since },
        ]
    }

    /// The worked example of spec 8.12.
    #[test]
    fn example() {
        let text = include_str!("../../format-spec/8-store.md");
        let bytes = encode(&sample()).unwrap();
        let line = std::str::from_utf8(&bytes).unwrap().trim_end();
        assert!(text.contains(line), "{line}");
    }

    #[test]
    fn written_and_read() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(&FS, root.path()).unwrap(), []);
        write(&FS, root.path(), &sample()).unwrap();
        assert_eq!(read(&FS, root.path()).unwrap(), sample());
    }

    #[test]
    fn every_bit_counts() {
        document::check_damage(&encode(&sample()).unwrap(), decode);
    }

    #[test]
    fn states_that_cannot_be() {
        let sealed = |alerts: serde_json::Value| {
            let document = serde_json::json!({"magic": MAGIC, "alerts": alerts});
            decode(&document::seal(&document).unwrap())
        };
        let alert = |name: &str, state: &str, since: i64| {
            sealed(serde_json::json!([{"name": name, "state": state, "since": since}]))
        };
        assert_eq!(alert("a", "firing", 5).unwrap()[0].state, State::Firing);
        assert!(alert("", "firing", 5).is_err());
        assert!(alert(&"x".repeat(65), "firing", 5).is_err());
        assert!(alert("a", "burning", 5).is_err());
        assert!(alert("a", "firing", i64::MAX).is_err());
        let one = serde_json::json!({"name": "a", "state": "firing", "since": 5});
        assert!(sealed(serde_json::Value::Array(vec![one; ALERT_RULES_MAX + 1])).is_err());
    }

    #[test]
    fn one_keeper_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let held = try_alerts_lock(&FS, root.path()).unwrap();
        assert!(held.is_some());
        assert!(try_alerts_lock(&FS, root.path()).unwrap().is_none());
        drop(held);
        assert!(try_alerts_lock(&FS, root.path()).unwrap().is_some());
    }
}
