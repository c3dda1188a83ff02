//! Adds up the durations of all tasks through views, without copying a column.
//!
//! `cargo run --release --example sum -- DIR`

use tallystone::{Filter, Result, Store, Table};

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "tallystone-data".to_owned());
    let snapshot = Store::open_read_only(&dir)?.snapshot()?;
    let (mut rows, mut sum) = (0, 0);
    for block in snapshot.views(Table::Task, &Filter::new(), Some(&["duration_ms"]))? {
        let block = block?;
        let durations = block.column(0);
        rows += durations.len() - durations.null_count();
        sum += durations.ints().expect("a column of integers").sum();
    }
    println!("{rows} tasks with a duration took {sum} ms");
    Ok(())
}
