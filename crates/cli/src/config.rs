//! The configuration file: rules of alerts, and what the dashboard shows.
//!
//! Owns where the file is, what its sections are, and messages that name file, line and
//! column. What the sections mean is decided by those who use them. Knows nothing of the command
//! but the settings of its dashboard, so that it can be fuzzed without it.

use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;
use tallystone::alert::Rule;

use crate::dashboard::settings::Settings;

/// Name of the file in a store.
pub(crate) const FILE_NAME: &str = "tallystone.toml";

/// Largest file that is read.
const BYTES_MAX: u64 = 1 << 20;

/// What the file says; without one, what holds unless told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Whether the rules that hold unless told hold beside those of `alert`.
    default_alerts: bool,
    /// Rules; one with the name of a default takes its place.
    alert: Vec<Rule>,
    /// What the dashboard shows.
    pub(crate) dashboard: Settings,
}

impl Default for Config {
    fn default() -> Self {
        Self { default_alerts: true, alert: Vec::new(), dashboard: Settings::default() }
    }
}

impl Config {
    /// Reads the file that is `named`, else that of the store if there is one.
    pub(crate) fn load(named: Option<&Path>, store: &Path) -> Result<Self, String> {
        let path = named.map_or_else(|| store.join(FILE_NAME), Path::to_path_buf);
        match read(&path) {
            Ok(text) => parse(&text).map_err(|error| describe(&path, &text, &error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {
                Ok(Self::default())
            }
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// The rules that hold.
    pub(crate) fn rules(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if self.default_alerts {
            rules = Rule::defaults(&self.dashboard.metrics);
            rules.retain(|rule| self.alert.iter().all(|own| own.name != rule.name));
        }
        rules.extend(self.alert.iter().cloned());
        rules
    }
}

fn read(path: &Path) -> io::Result<String> {
    // A pipe would be waited for without end, also to open it.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut text = String::new();
    #[expect(clippy::disallowed_methods, reason = "a file of the user's, in a store or not")]
    let file = std::fs::File::open(path)?;
    file.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > BYTES_MAX) {
        return Err(io::Error::other(format!("more than {BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Reads the text of the file.
pub(crate) fn parse(text: &str) -> Result<Config, toml::de::Error> {
    toml::from_str(text)
}

/// `FILE:LINE:COLUMN: what is wrong`.
pub(crate) fn describe(path: &Path, text: &str, error: &toml::de::Error) -> String {
    let at =
        error.span().and_then(|span| text.get(..span.start)).map_or_else(String::new, |before| {
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            format!(":{line}:{column}")
        });
    format!("{}{at}: {}", path.display(), error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        parse(text).unwrap().rules().into_iter().map(|rule| rule.name).collect()
    }

    #[test]
    fn rules_stand_beside_the_defaults_or_in_their_place() {
        let defaults = ["success-rate", "p99-latency", "token-budget", "queue-backlog"];
        assert_eq!(names(""), defaults);
        let own = "[[alert]]\nname = \"slow\"\nabove = 1\nquery = { method = \"average\" }\n";
        assert_eq!(names(own), [&defaults[..], &["slow"]].concat());
        let same = own.replace("slow", "p99-latency");
        assert_eq!(names(&same), ["success-rate", "token-budget", "queue-backlog", "p99-latency"]);
        assert_eq!(names(&format!("default_alerts = false\n{own}")), ["slow"]);
        let renamed = parse("[dashboard.metrics]\nqueue_pending = \"waiting\"\n").unwrap();
        assert_eq!(renamed.rules()[3].query.filter.metric_type.as_deref(), Some("waiting"));
    }

    #[test]
    fn the_examples_of_the_documentation_are_rules() {
        let text = include_str!("../../../docs/alerts.md");
        let (_, example) = text.split_once("```toml\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        assert_eq!(parse(example).unwrap().rules().len(), 4 + 3);
    }

    #[test]
    fn mistakes_have_a_place_and_a_reason() {
        let cases = [
            ("x = 1", "t.toml:1:1: unknown field `x`"),
            ("\n[dashboard]\nrefresh = \"0s\"", "t.toml:3:11: refresh \"0s\""),
            ("[dashboard]\nrefres = \"5s\"", "t.toml:2:1: unknown field `refres`"),
            (
                "[[alert]]\nname = \"a\"\nquery = { method = \"average\" }",
                "expected above or below",
            ),
            ("[[alert]]\nname = \"a\"\nabove = 1\nquery = { method = \"mode\" }", "`mode`"),
            ("= ", "t.toml:1:1: "),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err();
            let message = describe(Path::new("t.toml"), text, &error);
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
