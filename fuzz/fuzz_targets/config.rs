//! The configuration file of the command, which is a program: its modules for that are compiled
//! here once more.

#![no_main]

#[expect(dead_code, reason = "the command finds the file, and this has its text")]
#[path = "../../crates/cli/src/config.rs"]
mod config;

#[expect(dead_code, reason = "the command has arguments of the same form, too")]
#[path = "../../crates/cli/src/dashboard"]
mod dashboard {
    pub(crate) mod settings;
}

use std::path::Path;

tallystone_fuzz::target!(|input| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match config::parse(text) {
        Ok(config) => {
            assert!(!config.dashboard.panels.is_empty());
            config.rules().iter().for_each(|rule| assert!(!rule.query.describe().is_empty()));
        }
        Err(error) => {
            let told = config::describe(Path::new("t.toml"), text, &error);
            assert!(told.starts_with("t.toml:"), "{told}");
        }
    }
});
