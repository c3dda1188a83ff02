//! Ordered lists: agents by their figures, tasks by their duration.

use std::cmp::Ordering;
use std::slice::from_ref;

use crate::error::Result;
use crate::limits::LIST_LIMIT_DEFAULT;
use crate::query::aggregate::{Wanted, groups};
use crate::query::answer::{AgentSummary, SlowTask};
use crate::query::filter::{Filter, Limit, Order, TopBy};
use crate::query::keyed::Group;
use crate::query::plan::{Ledger, Question, Source};
use crate::query::rows::{Best, Candidate, LISTED, Reader, narrow};
use crate::query::scan::{key_at, scan_block};
use crate::schema::task;
use crate::segment::{Depth, TopRow};
use crate::snapshot::AnswerCache;
use crate::time::Timestamp;

/// The part of a list that a filter asks for.
pub(crate) fn part<T>(list: Vec<T>, filter: &Filter, default: Limit) -> Vec<T> {
    let limit = match filter.limit {
        Limit::Default => default,
        limit => limit,
    };
    let limit = match limit {
        Limit::Rows(rows) => rows,
        _ => usize::MAX,
    };
    list.into_iter().skip(filter.offset).take(limit).collect()
}

/// Agents in order; equal ones by name, those without the figure last.
pub(crate) fn agents(
    question: &Question,
    sources: &[Source],
    ledger: &mut Ledger,
    by: TopBy,
    order: Order,
    filter: &Filter,
    cache: Option<&AnswerCache>,
) -> Result<Vec<AgentSummary>> {
    let wanted = Wanted::everything(question.schema);
    let groups = groups(question, sources, ledger, task::AGENT_ID, &wanted, false, cache)?;
    let mut ranked: Vec<(Option<f64>, Group<'_>)> =
        groups.list().into_iter().map(|group| (figure(&group, by), group)).collect();
    let compare = |a: &(Option<f64>, Group<'_>), b: &(Option<f64>, Group<'_>)| {
        compare(a.0, b.0, order).then_with(|| a.1.name.cmp(b.1.name))
    };
    // Only those listed have to be in order.
    let limit = match filter.limit {
        Limit::Default => LIST_LIMIT_DEFAULT,
        Limit::Rows(rows) => rows,
        Limit::All => ranked.len(),
    };
    let listed = limit.saturating_add(filter.offset);
    if (1..ranked.len()).contains(&listed) {
        ranked.select_nth_unstable_by(listed - 1, compare);
        ranked.truncate(listed);
    }
    ranked.sort_unstable_by(compare);
    let listed = part(ranked, filter, Limit::Rows(LIST_LIMIT_DEFAULT));
    Ok(listed.iter().map(|(_, group)| to_summary(group)).collect())
}

/// What agents are ranked by.
fn figure(group: &Group<'_>, by: TopBy) -> Option<f64> {
    match by {
        TopBy::TaskCount => Some(to_float(group.rows)),
        TopBy::AvgDurationMs => group.stats[0].average(),
        TopBy::AvgTokensUsed => group.stats[1].average(),
        TopBy::SuccessRate => share(group.successes, group.rows),
    }
}

fn compare(a: Option<f64>, b: Option<f64>, order: Order) -> Ordering {
    match (a, b, order) {
        (Some(a), Some(b), Order::Ascending) => a.total_cmp(&b),
        (Some(a), Some(b), Order::Descending) => b.total_cmp(&a),
        (a, b, _) => b.is_some().cmp(&a.is_some()),
    }
}

fn to_summary(group: &Group<'_>) -> AgentSummary {
    AgentSummary {
        agent_id: group.name.to_owned(),
        task_count: group.rows,
        avg_duration_ms: group.stats[0].average(),
        avg_tokens_used: group.stats[1].average(),
        success_rate: share(group.successes, group.rows).unwrap_or_default(),
    }
}

/// A part of a whole, 0 to 1; `None` of nothing.
pub(crate) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| to_float(part) / to_float(whole))
}

/// A count as the nearest float; those of rows are exact.
#[expect(clippy::cast_precision_loss, reason = "a store has fewer than 2^53 rows")]
fn to_float(count: u64) -> f64 {
    count as f64
}

/// Tasks with a duration, slowest first; equal ones in the order of pages.
pub(crate) fn slowest(
    question: &Question,
    sources: &[Source],
    ledger: &mut Ledger,
    filter: &Filter,
) -> Result<Vec<SlowTask>> {
    let limit = match filter.limit {
        Limit::Default => Some(LIST_LIMIT_DEFAULT),
        Limit::Rows(rows) => Some(rows),
        Limit::All => None,
    };
    let wanted = limit.map(|limit| limit + filter.offset);
    loop {
        let damaged = ledger.damaged_blocks();
        let mut reader = Reader::new(question.schema, sources);
        let mut found = slowest_rows(question, sources, ledger, wanted)?;
        if reader.resolve(ledger, &mut found)? {
            found.truncate(wanted.unwrap_or(usize::MAX));
            let found = &found[filter.offset.min(found.len())..];
            if reader.load(ledger, found.iter().copied(), &COLUMNS)? {
                return Ok(found.iter().map(|row| to_slow_task(&reader, *row)).collect());
            }
        }
        // Damage in a column that is read late: chosen again without those blocks.
        assert!(ledger.damaged_blocks() > damaged, "damage is noted");
        ledger.start_over();
    }
}

const COLUMNS: [usize; 6] = [
    task::TIMESTAMP,
    task::TASK_ID,
    task::AGENT_ID,
    task::DURATION_MS,
    task::TOKENS_USED,
    task::SUCCESS,
];

fn to_slow_task(reader: &Reader<'_>, candidate: Candidate) -> SlowTask {
    let (columns, row) = reader.place(candidate);
    let column = |number: usize| columns[number].as_ref();
    let text = |number: usize| column(number).and_then(|c| c.text(row)).unwrap_or_default();
    SlowTask {
        task_id: text(task::TASK_ID).to_owned(),
        agent_id: text(task::AGENT_ID).to_owned(),
        duration_ms: candidate.key,
        tokens_used: column(task::TOKENS_USED).and_then(|c| c.int(row)),
        success: column(task::SUCCESS).and_then(|c| c.bool(row)).unwrap_or_default(),
        timestamp: Timestamp::clamped(reader.stamp(candidate)),
    }
}

/// The rows with the largest durations, and all that equal the last of them.
fn slowest_rows(
    question: &Question,
    sources: &[Source],
    ledger: &mut Ledger,
    wanted: Option<usize>,
) -> Result<Vec<Candidate>> {
    // Where rows cannot be read, others that are not listed may have to take their place.
    let list = |number: usize| match ledger.has_damage(&sources[number]) {
        true => None,
        false => Listed::of(question, number, &sources[number]),
    };
    let listed: Vec<Option<Listed<'_>>> = (0..sources.len()).map(list).collect();
    // A lower bound of the last duration wanted, from the lists alone.
    let mut floor = Best::new(wanted);
    for listed in listed.iter().flatten() {
        listed.rows().take(wanted.unwrap_or(usize::MAX)).for_each(|row| floor.push(row));
    }
    let floor = wanted.and_then(|wanted| {
        let rows = floor.finish();
        rows.get(wanted.checked_sub(1)?).map(|row| row.key)
    });
    let mut best = Best::new(wanted);
    let mut blocks: Vec<(i64, usize, usize)> = Vec::new();
    for (number, (source, listed)) in sources.iter().zip(listed).enumerate() {
        match listed.filter(|listed| listed.decides(floor)) {
            Some(listed) => {
                ledger.plan.summarised.add(source.segment.rows(), 0);
                let reaches = |row: &Candidate| floor.is_none_or(|floor| row.key >= floor);
                listed.rows().take_while(reaches).for_each(|row| best.push(row));
            }
            None => {
                for (block, info) in source.segment.blocks().iter().enumerate() {
                    if source.segment.nulls(block, task::DURATION_MS) != Some(info.rows) {
                        let zone = source.segment.zone(block, task::DURATION_MS);
                        blocks.push((zone.map_or(i64::MAX, |zone| zone.1), number, block));
                    }
                }
            }
        }
    }
    blocks.sort_unstable_by_key(|block| std::cmp::Reverse(*block));
    for (max, number, block) in blocks {
        let source = &sources[number];
        let columns = [task::DURATION_MS];
        if !best.admits(max) || floor.is_some_and(|floor| max < floor) {
            ledger.prune(source, block, &columns);
            continue;
        }
        let rows = source.block_rows(block);
        let found = scan_block(question, source, ledger, block, from_ref(&rows), &columns)?;
        let Some(found) = found else { continue };
        let place = Candidate { key: 0, source: narrow(number), block: narrow(block), row: 0 };
        for (position, row) in found.rows.iter().enumerate() {
            if let Some(key) = key_at(&found.columns[0], position)
                && floor.is_none_or(|floor| key >= floor)
                && best.admits(key)
            {
                best.push(Candidate { key, row: narrow(row), ..place });
            }
        }
        best.settle();
    }
    Ok(best.finish())
}

/// The rows with the largest values of a segment all of whose rows are meant.
struct Listed<'a> {
    source: u32,
    top: &'a [TopRow],
    /// All rows with a larger value are listed; `None` if all rows with any are.
    above: Option<i64>,
}

impl<'a> Listed<'a> {
    fn of(question: &Question, number: usize, source: &'a Source) -> Option<Self> {
        if !question.is_plain() || !source.covered {
            return None;
        }
        let summaries = source.summaries(Depth::Keys)?;
        let count = summaries.total.measures.first()?.count();
        let top = summaries.top.rows.as_slice();
        let above = top.last().map(|last| last.order_key);
        let above = if top.len() as u64 == count { None } else { Some(above?) };
        Some(Self { source: narrow(number), top, above })
    }

    /// The rows, largest first.
    fn rows(&self) -> impl Iterator<Item = Candidate> {
        let source = self.source;
        (0..).zip(self.top).map(move |(row, top)| Candidate {
            key: top.order_key,
            source,
            block: LISTED,
            row,
        })
    }

    /// Whether all rows that reach the floor are listed.
    fn decides(&self, floor: Option<i64>) -> bool {
        match (self.above, floor) {
            (None, _) => true,
            (Some(above), Some(floor)) => floor > above,
            (Some(_), None) => false,
        }
    }
}
