//! A report on a store that other processes write to: opened for reading only.
//!
//! `cargo run --release --example report -- DIR`

use tallystone::{Aggregation, Filter, Interval, Order, Percentile, Result, Store, Table, TopBy};

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "tallystone-data".to_owned());
    let snapshot = Store::open_read_only(&dir)?.snapshot()?;
    let all = Filter::new();
    let summary = snapshot.summary_stats(Percentile::Exact, &all)?.value;
    println!("{} tasks, {:?} succeeded", summary.total_tasks, summary.success_rate);
    println!("p95 {:?} ms, p99 {:?} ms", summary.p95_duration_ms, summary.p99_duration_ms);
    for agent in
        snapshot.top_agents(TopBy::TaskCount, Order::Descending, &all.clone().limit(5))?.rows
    {
        println!("{:<20} {:>8} {:?} ms", agent.agent_id, agent.task_count, agent.avg_duration_ms);
    }
    let hourly = snapshot.aggregate_by_time(
        Table::Task,
        "duration_ms",
        Interval::Hour,
        Aggregation::Avg,
        &all,
    )?;
    for bucket in hourly.rows.iter().rev().take(24) {
        println!("{} {:>8} {:?}", bucket.time_bucket, bucket.count, bucket.value);
    }
    Ok(())
}
