//! Is the house in order? Layers, citations of the format specification, and habits that
//! no compiler checks. Reads the sources as text; every failure says its remedy.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Modules of the library from the ground up: name, layer, and the modules of the same
/// layer that it may use. A module uses lower layers freely and nothing else; what a line
/// names stands above it, so there is no cycle. `lib.rs` names everything and is exempt.
const MODULES: &[(&str, u8, &[&str])] = &[
    // 0: ground.
    ("error", 0, &[]),
    ("limits", 0, &[]),
    ("time", 0, &["error", "limits"]),
    ("schema", 0, &["error", "limits"]),
    ("row", 0, &["error", "limits", "time", "schema"]),
    ("column", 0, &["error", "limits", "schema"]),
    ("selection", 0, &[]),
    ("config", 0, &["error", "limits", "time", "schema"]),
    ("report", 0, &["error", "time", "schema"]),
    ("planted", 0, &[]),
    ("sync", 0, &[]),
    // 1: bytes.
    ("format", 1, &[]),
    ("encoding", 1, &["format"]),
    ("sketch", 1, &["format"]),
    // 2: files.
    ("fs", 2, &[]),
    // 3: objects.
    ("segment", 3, &[]),
    ("store_files", 3, &[]),
    ("catalog", 3, &["store_files"]),
    ("snapshot", 3, &["catalog", "segment", "store_files"]),
    // 4: work.
    ("ingest", 4, &[]),
    ("query", 4, &[]),
    ("export", 4, &["query"]),
    ("alert", 4, &["query"]),
    ("maintain", 4, &[]),
    ("import", 4, &[]),
    ("inspect", 4, &[]),
    // 5: front.
    ("store", 5, &[]),
    ("testing", 5, &["store"]),
];

/// The only files with `unsafe` in them; the test is there because no safe call forks, the fuzz
/// targets because an allocator that counts is one.
const UNSAFE_FILES: &[&str] = &[
    "fuzz/src/lib.rs",
    "src/encoding/kernels.rs",
    "src/fs/fork.rs",
    "src/fs/mmap.rs",
    "tests/fork.rs",
];

/// Most characters of a line without a literal or an address in it.
const LINE_CHARS_MAX: usize = 100;

// ---------------------------------------------------------------------------------------
// The house

#[test]
fn modules_import_from_lower_layers_only() {
    let mut failures = Failures::default();
    for source in sources(&["src"]).iter().filter(|source| !source.is_test) {
        let Some(module) = source.module() else { continue };
        let Some(&(_, layer, siblings)) = find_module(&module) else {
            failures.add(source, 1, &format!("module {module} has no layer"));
            continue;
        };
        for (line, target) in source.imports() {
            let Some(&(_, target_layer, _)) = find_module(&target) else {
                let message = format!("crate::{target} is not a module of the library");
                failures.add(source, line, &message);
                continue;
            };
            let is_sibling = siblings.contains(&target.as_str());
            if module != target && target_layer >= layer && !is_sibling {
                let message =
                    format!("{module} (layer {layer}) uses {target} (layer {target_layer})");
                failures.add(source, line, &message);
            }
        }
    }
    failures.finish(
        "move what both need to a lower layer, or hand it in as an argument. Import a thing \
         from its own module (crate::time::Timestamp), not from the front. A new module gets \
         a line in MODULES (tests/tidy.rs) and one in ARCHITECTURE.md",
    );
}

#[test]
fn the_table_of_layers_has_no_cycle() {
    for (index, (module, layer, siblings)) in MODULES.iter().enumerate() {
        for sibling in *siblings {
            let above = MODULES[..index].iter().any(|(name, at, _)| name == sibling && at == layer);
            assert!(above, "MODULES: {module} may use {sibling} only if that is listed above it");
        }
        let sorted = index == 0 || MODULES[index - 1].1 <= *layer;
        assert!(sorted, "MODULES: {module} stands below a higher layer; sort by layer");
    }
}

#[test]
fn the_architecture_page_names_every_module() {
    let page = read("ARCHITECTURE.md");
    let mut failures = Failures::default();
    let modules: BTreeSet<_> = sources(&["src"]).iter().filter_map(Source::module).collect();
    for module in modules {
        if !page.contains(&format!("`{module}`")) {
            failures.add_text(format!("ARCHITECTURE.md does not name `{module}`"));
        }
    }
    failures.finish("add the module to the map in ARCHITECTURE.md: what it owns, what not");
}

#[test]
fn sources_are_ascii_and_narrow() {
    let mut failures = Failures::default();
    for source in everything() {
        for (number, (line, code)) in (1..).zip(source.text.lines().zip(source.code.lines())) {
            if !line.is_ascii() {
                failures.add(&source, number, "not ASCII: use an escape such as \\u{e9}");
            }
            let has_literal = code.contains('"') || code.chars().all(|c| c == '_');
            let chars = line.chars().count();
            if chars > LINE_CHARS_MAX && !has_literal && !line.contains("://") {
                failures.add(&source, number, &format!("{chars} characters wide"));
            }
        }
    }
    failures.finish("run `cargo fmt`, and break comments at 100 characters");
}

#[test]
fn modules_open_with_what_they_own() {
    let mut failures = Failures::default();
    for source in sources(&["src", "crates", "examples"]) {
        if !source.text.starts_with("//!") && !source.is_test {
            failures.add(&source, 1, "no module documentation");
        }
    }
    failures.finish("open the file with //! lines: what it owns, what not, the spec section");
}

#[test]
fn nothing_is_left_unfinished() {
    let mut failures = Failures::default();
    for source in everything() {
        for name in ["todo", "unimplemented", "dbg"] {
            for at in words(&source.code, name) {
                if source.code[at + name.len()..].starts_with('!') {
                    failures.add(&source, line_of(&source.code, at), &format!("{name}!"));
                }
            }
        }
    }
    failures.finish("finish it, return an error, or leave it out");
}

#[test]
fn lint_exceptions_give_a_reason() {
    let mut failures = Failures::default();
    for source in everything() {
        for at in words(&source.code, "allow") {
            let before = source.code[..at].trim_end();
            if before.ends_with("#[") || before.ends_with("#![") {
                failures.add(&source, line_of(&source.code, at), "a lint is allowed");
            }
        }
        for at in words(&source.code, "expect") {
            let before = source.code[..at].trim_end();
            let is_attribute = before.ends_with("#[") || before.ends_with("#![");
            let inside = source.code[at..].split(']').next().unwrap_or_default();
            if is_attribute && !inside.contains("reason") {
                failures.add(&source, line_of(&source.code, at), "an exception without reason");
            }
        }
    }
    failures.finish("write #[expect(the_lint, reason = \"...\")], or mend the code");
}

#[test]
fn files_are_touched_in_fs_alone() {
    let mut failures = Failures::default();
    for source in sources(&["src"]) {
        if source.is_test || source.path.starts_with("src/fs/") {
            continue;
        }
        for at in words(&source.shipped, "std") {
            let path = without_spaces(&source.shipped[at..], 200);
            let group = path.strip_prefix("std::{").map(|group| until_close(group, '{', '}'));
            let in_group = group.is_some_and(|group| words(group, "fs").next().is_some());
            if path.starts_with("std::fs") || in_group {
                failures.add(&source, line_of(&source.shipped, at), "std::fs");
            }
        }
        for at in words(&source.shipped, "memmap2") {
            failures.add(&source, line_of(&source.shipped, at), "memmap2");
        }
    }
    failures.finish("go through crate::fs::FileSystem, so that the simulated files see it");
}

#[test]
fn the_clock_is_read_in_time_alone() {
    let mut failures = Failures::default();
    for source in sources(&["src"]) {
        if source.is_test || source.module().as_deref() == Some("time") {
            continue;
        }
        for at in words(&source.shipped, "SystemTime") {
            failures.add(&source, line_of(&source.shipped, at), "SystemTime");
        }
    }
    failures.finish("ask the store's Clock (Options::clock), so that tests can set the time");
}

#[test]
fn unsafe_code_stays_where_it_is_expected() {
    let mut failures = Failures::default();
    for source in everything() {
        if !UNSAFE_FILES.contains(&source.path.as_str()) {
            for at in words(&source.code, "unsafe") {
                failures.add(&source, line_of(&source.code, at), "unsafe code");
            }
        }
    }
    failures.finish(
        "find a safe way (rustix, zerocopy), or argue for the file in UNSAFE_FILES \
         (tests/tidy.rs) and say in ARCHITECTURE.md who keeps the promise",
    );
}

#[test]
fn citations_of_the_format_are_live() {
    let mut failures = Failures::default();
    let sections = spec_sections(&mut failures);
    assert!(!sections.is_empty(), "format-spec/*.md has no numbered heading: write the spec");
    let mut cited = BTreeSet::new();
    for source in sources(&["src"]) {
        for (line, section) in citations(&source) {
            if !sections.contains_key(&section) {
                failures.add(&source, line, &format!("spec {section} is not a section"));
            }
            // To cite a part is to cite the whole.
            for (dot, _) in section.match_indices('.') {
                cited.insert(section[..dot].to_owned());
            }
            cited.insert(section);
        }
    }
    for (section, place) in sections {
        // Deeper sections are implemented where their parent is.
        let is_deep = section.matches('.').count() > 1;
        if !place.is_informative && !is_deep && !cited.contains(&section) {
            failures.add_text(format!(
                "{}:{}: spec {section} is cited nowhere in src",
                place.file, place.line
            ));
        }
    }
    failures.finish(
        "cite the section as `spec 4.2` where the code implements it; mend the number if \
         sections moved. A section that binds nobody has (informative) in its heading",
    );
}

#[test]
fn the_changelog_keeps_its_form() {
    let mut failures = Failures::default();
    let text = read("CHANGELOG.md");
    let manifest = read("Cargo.toml");
    let version = quoted_value(&manifest, "version").expect("Cargo.toml has a version");
    if text.lines().next() != Some("# Changelog") {
        failures.add_text("CHANGELOG.md:1: expected `# Changelog`".to_owned());
    }
    let releases = releases(&text, &mut failures);
    let newest = releases.first().map(|release| release.version.as_str());
    if newest != Some(version) {
        let newest = newest.unwrap_or("nothing");
        failures.add_text(format!(
            "CHANGELOG.md: the newest release is {newest}, Cargo.toml says {version}"
        ));
    }
    for release in &releases {
        if release.formats != 1 {
            failures.add_text(format!(
                "CHANGELOG.md:{}: {} says {} times what happened to the format",
                release.line, release.version, release.formats
            ));
        }
    }
    for pair in releases.windows(2) {
        if numbers(&pair[0].version) <= numbers(&pair[1].version) {
            failures.add_text(format!("CHANGELOG.md:{}: newest first", pair[1].line));
        }
    }
    failures.finish(
        "each release is `## 1.2.3 - 2026-11-23` (or `- unreleased`, the newest only), one \
         line `**Format 0.1**: ...` saying what files it writes and reads, then `- ` entries \
         about what changes for users",
    );
}

#[test]
fn the_checks_find_what_they_look_for() {
    let text = concat!(
        "//! Reads (spec 4.2\n//! and 5), never unsafe { }. See spec 2.3, 3.2.\n",
        "use crate::{error::Result, query as q};\n",
        "use super::snapshot::View;\n",
        "fn f<'a>(x: &'a str) -> char { let _ = r#\"crate::store \" unsafe\"#; '\"' }\n",
        "const TRAILER_SECTION: &str = \"6.6\";\n",
        "#[cfg(test)]\nmod tests {\n    use crate::store::Store; // }\n}\n",
        "fn g() { Error::corrupt(\n    \"5.4\", \"0.5\"); crate::fs::open(); corrupt(\"x\") }\n",
        "#[cfg(test)]\nmod model;\n",
    );
    let source = Source::new("src/segment.rs".to_owned(), text.to_owned());
    assert_eq!(source.module().as_deref(), Some("segment"));
    assert_eq!(source.code.lines().count(), text.lines().count());
    assert_eq!(words(&source.code, "unsafe").count(), 0);
    assert_eq!(source.test_modules, ["src/segment/model"]);
    let imports: Vec<_> = source.imports().into_iter().collect();
    let expected = [(3, "error"), (3, "query"), (4, "snapshot"), (12, "fs")];
    assert_eq!(imports, expected.map(|(line, name)| (line, name.to_owned())));
    let cited = [(1, "4.2"), (1, "5"), (2, "2.3"), (2, "3.2"), (6, "6.6"), (12, "5.4")];
    assert_eq!(citations(&source), cited.map(|(line, name)| (line, name.to_owned())));
    assert_eq!(heading("## 4.2 Column chunk"), Some("4.2"));
    assert_eq!(heading("# 9. Versions"), Some("9"));
    assert_eq!(heading("## 2 headers"), Some("2"));
    assert_eq!(heading("## The 2 headers"), None);
}

// ---------------------------------------------------------------------------------------
// Failures

/// What a check found.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn add(&mut self, source: &Source, line: usize, message: &str) {
        self.add_text(format!("{}:{line}: {message}", source.path));
    }

    fn add_text(&mut self, message: String) {
        self.0.push(message);
    }

    fn finish(self, remedy: &str) {
        let mut text = String::new();
        for failure in &self.0 {
            writeln!(text, "  {failure}").unwrap();
        }
        assert!(self.0.is_empty(), "{} found:\n{text}remedy: {remedy}", self.0.len());
    }
}

// ---------------------------------------------------------------------------------------
// Sources

/// A Rust file.
struct Source {
    /// From the root of the repository, with `/`.
    path: String,
    text: String,
    /// The text with comments and literals blanked, line for line.
    code: String,
    /// The code without what is compiled for tests alone.
    shipped: String,
    /// Paths, without ending, of the modules that are declared for tests alone.
    test_modules: Vec<String>,
    /// Whether the whole file is for tests.
    is_test: bool,
}

impl Source {
    fn new(path: String, text: String) -> Self {
        let code = blank_comments_and_literals(&text);
        let (shipped, names) = blank_tests(&code);
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let is_root = ["/mod.rs", "/lib.rs", "/main.rs"].iter().any(|end| path.ends_with(end));
        let dir = if is_root { parent } else { path.trim_end_matches(".rs") };
        let test_modules = names.iter().map(|name| format!("{dir}/{name}")).collect();
        let is_test = !path.starts_with("src/") && !path.contains("/src/");
        Self { path, text, code, shipped, test_modules, is_test }
    }

    /// Names of the modules from the root of the library to this file.
    fn module_path(&self) -> Vec<&str> {
        let inside = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        inside.split('/').filter(|name| !["mod", "lib"].contains(name)).collect()
    }

    /// The module of the library that the file belongs to; none for `lib.rs`.
    fn module(&self) -> Option<String> {
        self.module_path().first().map(|name| (*name).to_owned())
    }

    /// Line and first name of each path from the root of the library, tests left out.
    fn imports(&self) -> BTreeSet<(usize, String)> {
        let mut found = BTreeSet::new();
        for at in words(&self.shipped, "crate") {
            if let Some(path) = self.shipped[at..].strip_prefix("crate::") {
                let line = line_of(&self.shipped, at);
                found.extend(first_names(path).map(|name| (line, name)));
            }
        }
        let depth = self.module_path().len();
        let root = "super::".repeat(depth);
        for (at, _) in self.shipped.match_indices(&root) {
            let before = self.shipped[..at].chars().next_back();
            let is_start = before.is_none_or(|c| !is_name(c) && c != ':');
            let path = &self.shipped[at + root.len()..];
            if depth > 0 && is_start && !path.starts_with("super::") {
                let line = line_of(&self.shipped, at);
                found.extend(first_names(path).map(|name| (line, name)));
            }
        }
        found
    }
}

/// All Rust files of the workspace.
fn everything() -> Vec<Source> {
    sources(&["src", "crates", "tests", "benches", "examples", "fuzz"])
}

/// The Rust files below these folders; one that is not there has none.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut files = Vec::new();
    for folder in folders {
        collect(&root().join(folder), "rs", &mut files);
    }
    files.sort();
    let mut sources: Vec<_> =
        files.iter().map(|path| Source::new(relative(path), read(&relative(path)))).collect();
    let tests: Vec<_> =
        sources.iter().flat_map(|source| source.test_modules.iter().cloned()).collect();
    for source in &mut sources {
        let path = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        source.is_test |= tests.iter().any(|test| {
            path.strip_prefix(test.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
    }
    sources
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/")
}

fn read(path: &str) -> String {
    let text = std::fs::read_to_string(root().join(path));
    text.unwrap_or_else(|error| panic!("{path}: {error}; it belongs to the repository"))
}

fn collect(dir: &Path, ending: &str, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, ending, files);
        } else if path.extension().is_some_and(|found| found == ending) {
            files.push(path);
        }
    }
}

// ---------------------------------------------------------------------------------------
// Text

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Places of a word that is no part of a longer one.
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = text[..*at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn name_at(text: &str) -> &str {
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    &text[..end]
}

fn without_spaces(text: &str, chars_max: usize) -> String {
    text.chars().filter(|c| !c.is_whitespace()).take(chars_max).collect()
}

/// The text up to the `close` that ends a group opened before it.
fn until_close(text: &str, open: char, close: char) -> &str {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        depth += i32::from(c == open) - i32::from(c == close);
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

/// The first name of a path, or those of all its branches: `{a::b, c}` has `a` and `c`.
fn first_names(path: &str) -> impl Iterator<Item = String> {
    let mut names = Vec::new();
    if let Some(group) = path.trim_start().strip_prefix('{') {
        let mut depth = 0;
        let is_comma = |c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        };
        names.extend(until_close(group, '{', '}').split(is_comma).map(|name| name.trim_start()));
    } else {
        names.push(path.trim_start());
    }
    let names: Vec<_> = names.into_iter().map(|name| name_at(name).to_owned()).collect();
    names.into_iter().filter(|name| !name.is_empty() && name != "self")
}

/// Puts spaces for comments, and `"____"` for strings and characters.
fn blank_comments_and_literals(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut code = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = literal_end(&chars, i);
        if end > i {
            let (edge, inside) = if at(i) == '/' { (' ', ' ') } else { ('"', '_') };
            for (k, c) in chars[i..end].iter().enumerate() {
                let is_edge = k == 0 || i + k + 1 == end;
                code.push(match c {
                    '\n' => '\n',
                    _ if is_edge => edge,
                    _ => inside,
                });
            }
            i = end;
        } else {
            code.push(at(i));
            i += 1;
        }
    }
    code
}

/// Where the comment or literal that begins at `i` ends; `i` if none does.
fn literal_end(chars: &[char], i: usize) -> usize {
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let find = |from: usize, is_end: &dyn Fn(usize) -> bool| {
        (from..chars.len()).find(|k| is_end(*k)).unwrap_or(chars.len())
    };
    match (at(i), at(i + 1)) {
        ('/', '/') => find(i, &|k| at(k) == '\n'),
        ('/', '*') => {
            let mut depth = 0;
            let mut k = i;
            while k < chars.len() {
                match (at(k), at(k + 1)) {
                    ('/', '*') => (depth, k) = (depth + 1, k + 2),
                    ('*', '/') => (depth, k) = (depth - 1, k + 2),
                    _ => k += 1,
                }
                if depth == 0 {
                    break;
                }
            }
            k.min(chars.len())
        }
        ('"', _) => quoted_end(chars, i, '"'),
        ('\'', '\\') => quoted_end(chars, i, '\''),
        ('\'', _) if at(i + 2) == '\'' => i + 3,
        ('r', '#' | '"') if i == 0 || !is_name(at(i - 1)) || is_raw_prefix(chars, i) => {
            let hashes = find(i + 1, &|k| at(k) != '#') - i - 1;
            if at(i + 1 + hashes) != '"' {
                return i;
            }
            let ends = |k: usize| at(k) == '"' && (1..=hashes).all(|h| at(k + h) == '#');
            (find(i + 2 + hashes, &ends) + 1 + hashes).min(chars.len())
        }
        _ => i,
    }
}

/// Whether the `r` at `i` follows the `b` or `c` of a raw byte or C string.
fn is_raw_prefix(chars: &[char], i: usize) -> bool {
    let starts = i == 1 || i > 1 && !is_name(chars[i - 2]);
    starts && matches!(chars[i - 1], 'b' | 'c')
}

fn quoted_end(chars: &[char], i: usize, quote: char) -> usize {
    let mut k = i + 1;
    while k < chars.len() && chars[k] != quote {
        k += if chars[k] == '\\' { 2 } else { 1 };
    }
    (k + 1).min(chars.len())
}

/// Puts spaces for items under `#[cfg(test)]`; also names the modules among them that
/// have files of their own.
fn blank_tests(code: &str) -> (String, Vec<String>) {
    let mut shipped = String::with_capacity(code.len());
    let mut modules = Vec::new();
    let mut rest = code;
    while let Some((before, item)) = rest.split_once("#[cfg(test)]") {
        shipped.push_str(before);
        let end = item_end(item);
        let words: Vec<_> = item[..end].split_whitespace().collect();
        let after_mod = words.iter().position(|word| *word == "mod").and_then(|k| words.get(k + 1));
        if let Some(name) = after_mod.and_then(|name| name.strip_suffix(';')) {
            modules.push(name.to_owned());
        }
        shipped.extend(item[..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &item[end..];
    }
    shipped.push_str(rest);
    (shipped, modules)
}

/// Where the item that follows an attribute ends.
fn item_end(item: &str) -> usize {
    let mut depth = 0;
    for (at, c) in item.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' => depth -= 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

fn find_module(name: &str) -> Option<&'static (&'static str, u8, &'static [&'static str])> {
    MODULES.iter().find(|(module, ..)| *module == name)
}

// ---------------------------------------------------------------------------------------
// The specification

/// Where a section of the specification stands.
struct Place {
    file: String,
    line: usize,
    is_informative: bool,
}

/// The numbered headings of `format-spec/`.
fn spec_sections(failures: &mut Failures) -> BTreeMap<String, Place> {
    let mut files = Vec::new();
    collect(&root().join("format-spec"), "md", &mut files);
    files.sort();
    let mut sections: BTreeMap<String, Place> = BTreeMap::new();
    for path in files.iter().filter(|path| !path.ends_with("README.md")) {
        let file = relative(path);
        let mut is_fenced = false;
        for (line, text) in (1..).zip(read(&file).lines()) {
            is_fenced ^= text.starts_with("```");
            let Some(section) = heading(text).filter(|_| !is_fenced) else { continue };
            let parent = section.rsplit_once('.').and_then(|(parent, _)| sections.get(parent));
            let is_informative = text.ends_with("(informative)")
                || parent.is_some_and(|parent| parent.is_informative);
            let place = Place { file: file.clone(), line, is_informative };
            if let Some(other) = sections.insert(section.to_owned(), place) {
                let (other, at) = (other.file, other.line);
                failures.add_text(format!("{file}:{line}: spec {section} is also {other}:{at}"));
            }
        }
    }
    sections
}

/// The number of a numbered heading.
fn heading(line: &str) -> Option<&str> {
    let title = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
    section_number(title.split_whitespace().next()?).map(|(number, _)| number)
}

/// The section number at the start of a word, and what follows it.
fn section_number(word: &str) -> Option<(&str, &str)> {
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    let number = word[..end].trim_end_matches('.');
    let is_number = number.split('.').all(|part| (1..=2).contains(&part.len()));
    is_number.then(|| (number, &word[number.len()..]))
}

/// Line and number of every section that a file cites: `spec 4.2`, `spec 4.2 and 5`, or
/// as the section of an error.
fn citations(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // A citation may go over the end of a comment's line.
    let tokens: Vec<(usize, &str)> = (1..)
        .zip(source.text.lines())
        .flat_map(|(line, text)| text.split_whitespace().map(move |word| (line, word)))
        .filter(|(_, word)| !["//", "///", "//!"].contains(word))
        .collect();
    for (index, (line, word)) in tokens.iter().enumerate() {
        let word = word.trim_start_matches(['(', '[', '"', '`']);
        if ["spec", "Spec", "format-spec"].contains(&word) {
            let numbers = cited_after(tokens[index + 1..].iter().map(|(_, word)| *word));
            found.extend(numbers.into_iter().map(|number| (*line, number)));
        }
    }
    for (index, (line, word)) in tokens.iter().enumerate() {
        let argument = word.rsplit_once("corrupt(").map(|(_, argument)| argument);
        let is_constant = word.ends_with("SECTION:");
        let literal = match argument {
            Some("") => tokens.get(index + 1).map(|(line, word)| (*line, *word)),
            Some(argument) => Some((*line, argument)),
            None if is_constant => tokens.get(index + 3).map(|(line, word)| (*line, *word)),
            None => None,
        };
        let quoted = literal.and_then(|(line, word)| Some((line, word.strip_prefix('"')?)));
        let literal = quoted.and_then(|(line, word)| Some((line, word.split_once('"')?.0)));
        let number = literal.filter(|(_, word)| {
            section_number(word).is_some_and(|(_, rest)| rest.is_empty()) && !word.ends_with('.')
        });
        found.extend(number.map(|(line, number)| (line, number.to_owned())));
    }
    found.sort_by_key(|(line, _)| *line);
    found
}

/// The numbers of a list such as `4.2, 4.3 and 5)`.
fn cited_after<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut goes_on = true;
    for word in words {
        if !found.is_empty() && ["and", "or", "to"].contains(&word) {
            goes_on = true;
            continue;
        }
        let Some((number, rest)) = section_number(word).filter(|_| goes_on) else { break };
        // After the first, a bare number may count something else.
        let is_sure = found.is_empty() || number.contains('.') || !rest.is_empty();
        if !is_sure {
            break;
        }
        found.push(number.to_owned());
        goes_on = rest == ",";
        if !rest.is_empty() && !goes_on {
            break;
        }
    }
    found
}

// ---------------------------------------------------------------------------------------
// The changelog

/// One section of the changelog.
struct Release {
    version: String,
    line: usize,
    /// How many lines say what happened to the format.
    formats: usize,
}

fn releases(text: &str, failures: &mut Failures) -> Vec<Release> {
    let mut releases: Vec<Release> = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        if let Some(title) = text.strip_prefix("## ") {
            let (version, date) = title.split_once(" - ").unwrap_or((title, ""));
            let is_date = date.len() == 10 && numbers(&date.replace('-', ".")).len() == 3;
            let is_open = date == "unreleased" && releases.is_empty();
            if numbers(version).len() != 3 || !(is_date || is_open) {
                failures.add_text(format!("CHANGELOG.md:{line}: {title}"));
            }
            releases.push(Release { version: version.to_owned(), line, formats: 0 });
        } else if let Some(release) = releases.last_mut() {
            release.formats += usize::from(text.starts_with("**Format "));
        }
    }
    releases
}

/// The parts of `1.2.3`; none if one is no number.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(str::parse).collect::<Result<_, _>>().unwrap_or_default()
}

/// The value of the first line `key = "value"`.
fn quoted_value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(key)?.trim_start().strip_prefix('=')?.trim();
        value.strip_prefix('"')?.strip_suffix('"')
    })
}
