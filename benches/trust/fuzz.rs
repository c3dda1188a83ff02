//! Fuzzing as a campaign: runs a target of `fuzz/` and counts what libFuzzer says it executed.
//!
//! The targets are built by `.ci/run fuzz`, which says how.

use std::path::{Path, PathBuf};
use std::process::Command;

use tallystone::testing::trust::{Verdict, Violation, ensure};

/// Seconds of one case.
const SECONDS: u64 = 300;
/// Those that read text: they reach no unsafe code, in which alone a sanitizer of addresses finds
/// anything, and run four times as often without one.
const TEXTS: [&str; 4] = ["config", "document", "exposition", "texts"];

/// The binary of each target that is built, by name.
pub(crate) fn targets() -> Vec<PathBuf> {
    built("fuzz-address")
}

/// The binary of each target of text that is built without a sanitizer, by name.
pub(crate) fn texts() -> Vec<PathBuf> {
    let is_text = |path: &PathBuf| TEXTS.iter().any(|name| path.ends_with(name));
    built("fuzz-none").into_iter().filter(is_text).collect()
}

fn built(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let names = names(&root.join("fuzz/fuzz_targets"));
    let hosts = entries(&root.join("target").join(folder));
    for host in hosts {
        let binary = |name: &String| host.join("release").join(name);
        found.extend(names.iter().map(binary).filter(|path| path.is_file()));
    }
    found.sort();
    found
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(dir).into_iter().flatten();
    listed.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let stem = |path: &PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    entries(dir).iter().filter_map(stem).collect()
}

/// Runs one target: the case says which, and is its seed. Returns the executions.
pub(crate) fn run(targets: &[PathBuf], case: u64) -> Verdict<u64> {
    let index = usize::try_from(case).unwrap_or(0) % targets.len().max(1);
    let target = targets
        .get(index)
        .ok_or_else(|| Violation::new("no target is built: `.ci/run fuzz` does it"))?;
    let name = target.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let place = tempfile::tempdir().map_err(|error| Violation::new(error.to_string()))?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = root.join("target/fuzz-found").join(name);
    let _ = std::fs::create_dir_all(&found);
    let words = root.join("fuzz/dictionaries").join(name);
    let output = Command::new(target)
        .current_dir(place.path())
        .env("ASAN_OPTIONS", "malloc_context_size=2:detect_stack_use_after_return=0")
        .args([format!("-max_total_time={SECONDS}"), format!("-seed={}", case + 1)])
        .args(["-rss_limit_mb=512", "-timeout=10", "-print_final_stats=1", "-verbosity=0"])
        .args(["-entropic=0", "-print_funcs=0"])
        .args(words.is_file().then(|| format!("-dict={}", words.display())))
        .arg(format!("-artifact_prefix={}/", root.join("target/fuzz-artifacts").display()))
        .args([&found, &root.join("fuzz/corpus").join(name)])
        .output()
        .map_err(|error| Violation::new(format!("{}: {error}", target.display())))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.success(), || format!("{name}, seed {}: {said}", case + 1))?;
    let count = said
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok());
    count.ok_or_else(|| Violation::new(format!("{name} does not say what it executed")))
}
