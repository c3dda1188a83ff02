//! Running the command on a store of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A directory with a store in it, once something was written.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

/// How a run of the command ended.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// With a store that keeps rows of any age.
    pub(crate) fn keeping() -> Self {
        let place = Self::new();
        place.file("none.csv", b"timestamp,task_id,agent_id,success\n");
        place.ok("import none.csv --keep");
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// The command with the store, to be started in the directory.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallystone"));
        command.args(args).current_dir(self.path());
        command.env("TALLYSTONE_STORE", self.store()).env("NO_COLOR", "1");
        command.stdin(Stdio::null());
        command
    }

    /// Runs the command; arguments are separated by spaces.
    pub(crate) fn run(&self, line: &str) -> Run {
        self.run_args(&line.split_whitespace().collect::<Vec<_>>())
    }

    pub(crate) fn run_args(&self, args: &[&str]) -> Run {
        Run::of(self.command(args).output().unwrap())
    }

    /// Runs the command, which has to end well.
    pub(crate) fn ok(&self, line: &str) -> String {
        self.ok_args(&line.split_whitespace().collect::<Vec<_>>())
    }

    pub(crate) fn ok_args(&self, args: &[&str]) -> String {
        let run = self.run_args(args);
        assert_eq!(run.code, 0, "{args:?}: {}", run.err);
        run.out
    }

    /// Runs the command, which has to end well and to print JSON.
    pub(crate) fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{line} --json"))).unwrap()
    }

    /// Number of rows of a table.
    pub(crate) fn rows(&self, table: &str) -> usize {
        self.json(&format!("query metrics --table {table} --limit all"))["rows"]
            .as_array()
            .unwrap()
            .len()
    }

    /// Writes a file beside the store and returns its name.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> String {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(self.path().join(name))
            .unwrap();
        file.write_all(bytes).unwrap();
        name.to_owned()
    }
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Checks the exit code, and that the message has all of these in it.
    pub(crate) fn fails(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        for part in parts {
            assert!(self.err.contains(part), "expected {part:?} in {:?}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }
}

/// The keys of a JSON object, in their order.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Checks that an object has these keys and no other.
pub(crate) fn expect_keys(value: &Value, expected: &[&str]) {
    let mut found = keys(value);
    let mut expected = expected.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}
