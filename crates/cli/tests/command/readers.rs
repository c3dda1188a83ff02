//! Exports read back by programs that we did not write: `tests/readers/run.py`. What is not
//! installed is skipped here, and said; `.ci/run readers` installs and requires all of it.

use std::path::Path;
use std::process::Command;

#[test]
fn others_read_the_same() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/readers/run.py");
    let run = Command::new("python3")
        .arg("-B")
        .arg(script)
        .arg(env!("CARGO_BIN_EXE_tallystone"))
        .output();
    let Ok(run) = run else {
        println!("skipped: no python3 to read exports with");
        return;
    };
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}{err}");
    out.lines().filter(|line| line.starts_with("skipped")).for_each(|line| println!("{line}"));
}
