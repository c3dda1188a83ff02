//! Four worker threads record their tasks; the store is durable when they are done.
//!
//! `cargo run --release --example record -- DIR`

use std::thread;

use tallystone::time::{Clock, SystemClock};
use tallystone::{Result, Store, Table, TaskMetric};

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "tallystone-data".to_owned());
    let store = Store::open(&dir)?;
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let store = store.clone();
            thread::spawn(move || work(&store, worker))
        })
        .collect();
    for worker in workers {
        worker.join().expect("a worker does not panic")?;
    }
    store.flush()?;
    println!("{dir}: {} tasks", store.snapshot()?.rows(Table::Task));
    store.close()
}

fn work(store: &Store, worker: usize) -> Result<()> {
    // An appender of its own: no worker waits for another.
    let mut appender = store.appender()?;
    let agent_id = format!("worker-{worker}");
    for task in 0..1_000_i64 {
        appender.append_task(&TaskMetric {
            timestamp: SystemClock.now(),
            task_id: &format!("{agent_id}-{task}"),
            agent_id: &agent_id,
            duration_ms: Some(20 + task % 180),
            tokens_used: Some(500 + task),
            success: task % 50 != 0,
            metadata: None,
        })?;
    }
    Ok(())
}
