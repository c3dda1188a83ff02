//! Reads the specification, so that tests hold code and text against each other.

/// The sections that this module and `sketch` implement, by file name.
const SECTIONS: &[(&str, &str)] = &[
    ("1-conventions.md", include_str!("../../format-spec/1-conventions.md")),
    ("2-container.md", include_str!("../../format-spec/2-container.md")),
    ("3-active.md", include_str!("../../format-spec/3-active.md")),
    ("4-blocks.md", include_str!("../../format-spec/4-blocks.md")),
    ("6-sealed.md", include_str!("../../format-spec/6-sealed.md")),
    ("7-sketches.md", include_str!("../../format-spec/7-sketches.md")),
    ("9-versions.md", include_str!("../../format-spec/9-versions.md")),
];

/// The text of a section.
pub(crate) fn section(file: &str) -> &'static str {
    SECTIONS.iter().find(|(name, _)| *name == file).unwrap().1
}

fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

/// Rows of the form `` | `NAME` | number | meaning | `` under a heading `constant`.
pub(crate) fn constants() -> Vec<(String, i128)> {
    let mut found = Vec::new();
    for (_, text) in SECTIONS {
        let mut inside = false;
        for line in text.lines() {
            if !line.starts_with('|') {
                inside = false;
                continue;
            }
            let cells = cells(line);
            if cells[0] == "constant" {
                inside = true;
            } else if inside && cells[0].starts_with('`') {
                let name = cells[0].trim_matches('`').to_owned();
                let value = cells[1].replace(' ', "");
                found.push((name, value.parse().unwrap_or_else(|_| panic!("{line}"))));
            }
        }
    }
    found
}

/// The table after the words ``Structure `name` ``: offset, size and name of each field.
pub(crate) fn structure(name: &str) -> Vec<(usize, usize, String)> {
    let marker = format!("Structure `{name}`");
    let text = SECTIONS.iter().find(|(_, text)| text.contains(&marker)).unwrap().1;
    text.split(&marker)
        .nth(1)
        .unwrap()
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .filter_map(|cells| {
            let offset = cells[0].parse().ok()?;
            Some((offset, cells[1].parse().ok()?, cells[3].trim_matches('`').to_owned()))
        })
        .collect()
}

/// The bytes of the fenced block `` ```hex name ``: lines of an offset and up to sixteen
/// bytes in hexadecimal. Bytes that are not shown are zero.
pub(crate) fn example(name: &str) -> Vec<u8> {
    let fence = format!("```hex {name}\n");
    let Some((_, text)) = SECTIONS.iter().find(|(_, text)| text.contains(&fence)) else {
        return Vec::new();
    };
    let body = text.split(&fence).nth(1).unwrap().split("```").next().unwrap();
    let mut bytes = Vec::new();
    for line in body.lines() {
        let mut words = line.split_whitespace();
        let offset = usize::from_str_radix(words.next().unwrap(), 16).unwrap();
        assert!(offset >= bytes.len(), "{name}: offsets rise");
        bytes.resize(offset, 0);
        bytes.extend(words.map(|word| u8::from_str_radix(word, 16).unwrap()));
    }
    bytes
}

/// Compares a built structure with the example in the spec; on a difference the message
/// holds the text that the spec should have.
pub(crate) fn assert_example(name: &str, bytes: &[u8]) {
    let mut text = String::new();
    for (line, chunk) in bytes.chunks(16).enumerate() {
        let last = (line + 1) * 16 >= bytes.len();
        if last || chunk.iter().any(|byte| *byte != 0) {
            let hex: Vec<_> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
            text += &format!("{:04x}  {}\n", line * 16, hex.join(" "));
        }
    }
    assert!(example(name) == bytes, "the spec's example {name} should read\n{text}");
}
