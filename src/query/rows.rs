//! Rows, newest first: the best few by stamp, then their columns.
//!
//! The order is the reverse of ascending (timestamp, ids in the schema's `page_order`,
//! hash, bytes): everything descends. Bytes are the canonical bytes of the remaining
//! columns in schema order, and hash is their XXH3-128: per column a 0 for null, else a 1
//! and the value (integers and floats as 8 bytes little-endian, floats by their bits,
//! booleans as one byte, text as a 4-byte length and UTF-8). Rows that are equal in all
//! of this are equal rows, and their order cannot be told.
//!
//! Only stamps are looked at to choose rows, block by block from the newest, until no
//! later block can hold a better one. Ids are read where stamps tie, other columns where
//! ids do, and all of them for the rows of the page.

use std::cmp::Ordering;
use std::ops::Range;
use std::slice::from_ref;

use xxhash_rust::xxh3::xxh3_128;

use crate::column::{Column, Values};
use crate::error::Result;
use crate::limits::LIMIT_DEFAULT;
use crate::query::answer::Page;
use crate::query::cursor::{Place, RowKey};
use crate::query::filter::{Filter, Limit};
use crate::query::plan::{Ledger, Map, Question, Shape, Source};
use crate::query::scan::{local, scan_block, unexpected};
use crate::row::{AgentRow, Row, SwarmRow, TaskRow};
use crate::schema::{Schema, Table, gauge, task};
use crate::segment::{Depth, TopRows};
use crate::selection::Selection;
use crate::snapshot::Snapshot;
use crate::time::{TimeRange, Timestamp};

/// Rows are looked at in pieces of this many, so that the threshold rises early.
const PIECE_ROWS: usize = 1024;

/// A row that may be in the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// What candidates are chosen by, largest first.
    pub(crate) key: i64,
    /// Position among the sources.
    pub(crate) source: u32,
    /// Its block, or [`LISTED`].
    pub(crate) block: u32,
    /// Its row in the block; of a listed one, its place in the list.
    pub(crate) row: u32,
}

/// Stands for the block of a candidate whose columns are in its segment's list of the
/// largest rows: all but JSON text.
pub(crate) const LISTED: u32 = u32::MAX;

/// The largest few of many candidates, and all that equal the least of them.
pub(crate) struct Best {
    wanted: usize,
    kept: Vec<Candidate>,
    /// A key that at least `wanted` candidates reach.
    threshold: Option<i64>,
    /// Number of candidates at which it is worth while to raise it.
    full: usize,
}

impl Best {
    /// Keeps `wanted` candidates, or all.
    pub(crate) fn new(wanted: Option<usize>) -> Self {
        let wanted = wanted.unwrap_or(usize::MAX);
        let full = wanted.saturating_mul(2).max(PIECE_ROWS);
        Self { wanted, kept: Vec::new(), threshold: None, full }
    }

    /// Whether a candidate with this key could be among the best.
    pub(crate) fn admits(&self, key: i64) -> bool {
        self.wanted > 0 && self.threshold.is_none_or(|threshold| key >= threshold)
    }

    /// Adds one that is admitted.
    pub(crate) fn push(&mut self, candidate: Candidate) {
        self.kept.push(candidate);
    }

    /// Raises the threshold when there are many more candidates than wanted.
    pub(crate) fn settle(&mut self) {
        let first = self.threshold.is_none() && self.kept.len() >= self.wanted;
        if first || self.kept.len() > self.full {
            self.cut();
            // Doubling keeps this linear where so many tie that none can be dropped.
            self.full = self.full.max(self.kept.len().saturating_mul(2));
        }
    }

    fn cut(&mut self) {
        if self.wanted == 0 {
            self.kept.clear();
        } else if self.kept.len() >= self.wanted {
            let (_, least, _) =
                self.kept.select_nth_unstable_by(self.wanted - 1, |a, b| b.key.cmp(&a.key));
            let threshold = least.key;
            self.threshold = Some(threshold);
            self.kept.retain(|candidate| candidate.key >= threshold);
        }
    }

    /// The best, largest first; those that equal the last one wanted are all there.
    pub(crate) fn finish(mut self) -> Vec<Candidate> {
        self.cut();
        self.kept.sort_unstable_by(|a, b| {
            // Places break ties so that equal keys stay together by block.
            (b.key, a.source, a.block, a.row).cmp(&(a.key, b.source, b.block, b.row))
        });
        self.kept
    }
}

/// A position as it is kept in candidates.
pub(crate) fn narrow(position: usize) -> u32 {
    u32::try_from(position).expect("a snapshot has fewer than 2^32 segments and blocks")
}

/// Columns of the rows of some candidates of one block.
struct Loaded {
    /// The rows, ascending.
    rows: Vec<u32>,
    /// Per column of the schema: those rows of it, where loaded.
    columns: Vec<Option<Column>>,
}

/// The rows that were read for candidates, by source and block.
pub(crate) struct Reader<'a> {
    schema: &'static Schema,
    sources: &'a [Source],
    blocks: Map<(u32, u32), Loaded>,
}

impl<'a> Reader<'a> {
    /// Nothing read yet.
    pub(crate) fn new(schema: &'static Schema, sources: &'a [Source]) -> Self {
        Self { schema, sources, blocks: Map::default() }
    }

    /// Reads columns of the rows of the candidates, where that was not done and they are not
    /// listed; false if one of their blocks is damaged. Looks at all of them in any case.
    pub(crate) fn load(
        &mut self,
        ledger: &mut Ledger,
        candidates: impl IntoIterator<Item = Candidate>,
        columns: &[usize],
    ) -> Result<bool> {
        let mut wanted: Map<(u32, u32), Vec<u32>> = Map::default();
        for candidate in candidates.into_iter().filter(|candidate| candidate.block != LISTED) {
            wanted.entry((candidate.source, candidate.block)).or_default().push(candidate.row);
        }
        let mut whole = true;
        for (place, rows) in wanted {
            whole &= self.load_block(ledger, place, rows, columns)?;
        }
        Ok(whole)
    }

    fn load_block(
        &mut self,
        ledger: &mut Ledger,
        place: (u32, u32),
        mut rows: Vec<u32>,
        columns: &[usize],
    ) -> Result<bool> {
        let width = self.schema.columns.len();
        let none = || Loaded { rows: Vec::new(), columns: vec![None; width] };
        let loaded = self.blocks.entry(place).or_insert_with(none);
        let mut missing: Vec<usize> =
            columns.iter().copied().filter(|column| loaded.columns[*column].is_none()).collect();
        if rows.iter().any(|row| loaded.rows.binary_search(row).is_err()) {
            rows.extend_from_slice(&loaded.rows);
            rows.sort_unstable();
            rows.dedup();
            loaded.rows = rows;
            // What was loaded of other rows is loaded again with these.
            missing = (0..width)
                .filter(|column| {
                    loaded.columns[*column].take().is_some() || columns.contains(column)
                })
                .collect();
        }
        let source = &self.sources[place.0 as usize];
        let rows = Selection::of_rows(loaded.rows.clone());
        let mut whole = true;
        for column in missing {
            let read = ledger.read_rows(source, place.1 as usize, column, &rows)?;
            whole &= read.is_some();
            loaded.columns[column] = read;
        }
        Ok(whole)
    }

    /// The loaded columns of a candidate's block, and its row in them; those not loaded are
    /// `None`.
    pub(crate) fn place(&self, candidate: Candidate) -> (&[Option<Column>], usize) {
        if candidate.block == LISTED {
            return (&self.list(candidate).columns, candidate.row as usize);
        }
        let loaded = &self.blocks[&(candidate.source, candidate.block)];
        let row = loaded.rows.binary_search(&candidate.row).expect("loaded before it is used");
        (&loaded.columns, row)
    }

    /// The list that a listed candidate is in.
    fn list(&self, candidate: Candidate) -> &'a TopRows {
        let summaries = self.sources[candidate.source as usize].summaries(Depth::Keys);
        &summaries.expect("who is listed has a list").top
    }

    /// The candidate as a row of its block.
    fn in_block(&self, candidate: Candidate) -> Candidate {
        if candidate.block != LISTED {
            return candidate;
        }
        let row = self.list(candidate).rows[candidate.row as usize].row;
        let blocks = self.sources[candidate.source as usize].segment.blocks();
        let block = blocks.partition_point(|block| block.first_row <= row) - 1;
        let row = narrow(local(row - blocks[block].first_row));
        Candidate { block: narrow(block), row, ..candidate }
    }

    fn column(&self, candidate: Candidate, column: usize) -> (&Column, usize) {
        let (columns, row) = self.place(candidate);
        (columns[column].as_ref().expect("loaded before it is used"), row)
    }

    fn text(&self, candidate: Candidate, column: usize) -> &str {
        let (column, row) = self.column(candidate, column);
        column.text(row).unwrap_or_default()
    }

    /// The stamp of a candidate, once that column is loaded.
    pub(crate) fn stamp(&self, candidate: Candidate) -> i64 {
        let (column, row) = self.column(candidate, 0);
        column.int(row).unwrap_or_default()
    }

    fn compare_ids(&self, a: Candidate, b: Candidate) -> Ordering {
        let ids = self.schema.page_order.iter();
        ids.map(|column| self.text(a, *column).cmp(self.text(b, *column)))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    /// Canonical bytes of the columns that neither the stamp nor the ids tell.
    fn bytes(&self, candidate: Candidate) -> Vec<u8> {
        let mut bytes = Vec::new();
        for column in rest(self.schema) {
            let (column, row) = self.column(candidate, column);
            push_canonical(column, row, &mut bytes);
        }
        bytes
    }

    fn ids(&self, candidate: Candidate) -> Vec<String> {
        let ids = self.schema.page_order.iter();
        ids.map(|column| self.text(candidate, *column).to_owned()).collect()
    }

    fn hash(&self, candidate: Candidate) -> u128 {
        xxh3_128(&self.bytes(candidate))
    }

    /// Puts candidates that are sorted by key, largest first, into the order of pages
    /// where keys tie; false if a column that decides is damaged.
    pub(crate) fn resolve(
        &mut self,
        ledger: &mut Ledger,
        candidates: &mut [Candidate],
    ) -> Result<bool> {
        let ids: Vec<usize> =
            std::iter::once(0).chain(self.schema.page_order.iter().copied()).collect();
        let ties = || candidates.chunk_by(|a, b| a.key == b.key).filter(|tie| tie.len() > 1);
        if !self.load(ledger, ties().flatten().copied(), &ids)? {
            return Ok(false);
        }
        let order = |reader: &Self, a: &Candidate, b: &Candidate| {
            let stamps = reader.stamp(*b).cmp(&reader.stamp(*a));
            stamps.then_with(|| reader.compare_ids(*b, *a))
        };
        for tie in candidates.chunk_by_mut(|a, b| a.key == b.key).filter(|tie| tie.len() > 1) {
            tie.sort_by(|a, b| order(self, a, b));
        }
        let mut equal: Vec<Range<usize>> = Vec::new();
        let mut start = 0;
        for tie in candidates.chunk_by(|a, b| a.key == b.key) {
            // A single row has not been loaded, and needs no company.
            if tie.len() == 1 {
                start += 1;
                continue;
            }
            for run in tie.chunk_by(|a, b| order(self, a, b).is_eq()) {
                if run.len() > 1 {
                    equal.push(start..start + run.len());
                }
                start += run.len();
            }
        }
        let rest: Vec<usize> = rest(self.schema).collect();
        for run in &equal {
            let run = &mut candidates[run.clone()];
            run.iter_mut().for_each(|row| *row = self.in_block(*row));
        }
        let rows = equal.iter().flat_map(|run| candidates[run.clone()].iter().copied());
        if !self.load(ledger, rows, &rest)? {
            return Ok(false);
        }
        for run in equal {
            candidates[run].sort_by_cached_key(|row| {
                let bytes = self.bytes(*row);
                std::cmp::Reverse((xxh3_128(&bytes), bytes))
            });
        }
        Ok(true)
    }
}

/// The columns that neither the stamp nor the ids of a page tell.
fn rest(schema: &Schema) -> impl Iterator<Item = usize> {
    (1..schema.columns.len()).filter(|column| !schema.page_order.contains(column))
}

/// Appends the canonical bytes of a value.
pub(super) fn push_canonical(column: &Column, row: usize, bytes: &mut Vec<u8>) {
    if !column.is_valid(row) {
        bytes.push(0);
        return;
    }
    bytes.push(1);
    match &column.values {
        Values::Int(values) => bytes.extend(values[row].to_le_bytes()),
        Values::Float(values) => bytes.extend(values[row].to_bits().to_le_bytes()),
        Values::Bool(values) => bytes.push(u8::from(values.get(row))),
        Values::Text(_) | Values::Coded { .. } => {
            let text = column.text(row).unwrap_or_default();
            bytes.extend(u32::try_from(text.len()).expect("a text is under 4 GiB").to_le_bytes());
            bytes.extend(text.as_bytes());
        }
    }
}

/// A row built from columns in schema order.
pub(crate) trait FromColumns: Sized + Clone + Send + Sync + 'static {
    /// Row `row` of the columns.
    fn from_columns(table: Table, columns: &Columns<'_>, row: usize) -> Self;

    /// Bytes of its texts.
    fn text_bytes(&self) -> usize;
}

/// All columns of one block.
pub(crate) struct Columns<'a>(pub(crate) Vec<&'a Column>);

impl Columns<'_> {
    fn timestamp(&self, row: usize) -> Timestamp {
        Timestamp::clamped(self.0[0].int(row).unwrap_or_default())
    }

    fn text(&self, column: usize, row: usize) -> String {
        self.0[column].text(row).unwrap_or_default().to_owned()
    }

    fn json(&self, column: usize, row: usize) -> Option<String> {
        self.0[column].text(row).map(str::to_owned)
    }
}

impl FromColumns for TaskRow {
    fn from_columns(_: Table, columns: &Columns<'_>, row: usize) -> Self {
        Self {
            timestamp: columns.timestamp(row),
            task_id: columns.text(task::TASK_ID, row),
            agent_id: columns.text(task::AGENT_ID, row),
            duration_ms: columns.0[task::DURATION_MS].int(row),
            tokens_used: columns.0[task::TOKENS_USED].int(row),
            success: columns.0[task::SUCCESS].bool(row).unwrap_or_default(),
            metadata: columns.json(task::METADATA, row),
        }
    }

    fn text_bytes(&self) -> usize {
        let metadata = self.metadata.as_ref().map_or(0, String::len);
        self.task_id.len() + self.agent_id.len() + metadata
    }
}

impl FromColumns for AgentRow {
    fn from_columns(_: Table, columns: &Columns<'_>, row: usize) -> Self {
        Self {
            timestamp: columns.timestamp(row),
            agent_id: columns.text(gauge::OWNER_ID, row),
            metric_type: columns.text(gauge::METRIC_TYPE, row),
            value: columns.0[gauge::VALUE].float(row).unwrap_or_default(),
            metadata: columns.json(gauge::METADATA, row),
        }
    }

    fn text_bytes(&self) -> usize {
        let metadata = self.metadata.as_ref().map_or(0, String::len);
        self.agent_id.len() + self.metric_type.len() + metadata
    }
}

impl FromColumns for SwarmRow {
    fn from_columns(_: Table, columns: &Columns<'_>, row: usize) -> Self {
        Self {
            timestamp: columns.timestamp(row),
            swarm_id: columns.text(gauge::OWNER_ID, row),
            metric_type: columns.text(gauge::METRIC_TYPE, row),
            value: columns.0[gauge::VALUE].float(row).unwrap_or_default(),
            metadata: columns.json(gauge::METADATA, row),
        }
    }

    fn text_bytes(&self) -> usize {
        let metadata = self.metadata.as_ref().map_or(0, String::len);
        self.swarm_id.len() + self.metric_type.len() + metadata
    }
}

impl FromColumns for Row {
    fn from_columns(table: Table, columns: &Columns<'_>, row: usize) -> Self {
        match table {
            Table::Task => Self::Task(TaskRow::from_columns(table, columns, row)),
            Table::Agent => Self::Agent(AgentRow::from_columns(table, columns, row)),
            Table::Swarm => Self::Swarm(SwarmRow::from_columns(table, columns, row)),
        }
    }

    fn text_bytes(&self) -> usize {
        match self {
            Self::Task(row) => row.text_bytes(),
            Self::Agent(row) => row.text_bytes(),
            Self::Swarm(row) => row.text_bytes(),
        }
    }
}

/// One page of a table, newest first.
pub(crate) fn page<T: FromColumns>(
    snapshot: &Snapshot,
    table: Table,
    filter: &Filter,
) -> Result<Page<T>> {
    let mut question = Question::new(table, filter)?;
    let place = Place::of(filter, &question)?;
    if let Some(place) = &place {
        question.range = place.range;
    }
    let mut pager = Pager {
        place: place.unwrap_or_else(|| Place::start(&question)),
        limit: match filter.limit {
            Limit::Default => Some(LIMIT_DEFAULT),
            Limit::Rows(rows) => Some(rows),
            Limit::All => None,
        },
        offset: filter.offset,
        ledger: Ledger::new(snapshot, &question),
    };
    let sources = pager.ledger.sources(snapshot, &question);
    let (rows, next_cursor) = loop {
        let damaged = pager.ledger.damaged_blocks();
        match pager.attempt(&question, &sources)? {
            Some(found) => break found,
            // Damage in a column that is read late: the page is chosen again without it.
            None => assert!(pager.ledger.damaged_blocks() > damaged, "damage is noted"),
        }
        pager.ledger.start_over();
    };
    let (coverage, plan) = pager.ledger.finish(filter, Shape::Rows)?;
    let next_cursor = next_cursor.map(|place| place.encode());
    Ok(Page { rows, next_cursor, coverage, cached: false, plan })
}

struct Pager {
    place: Place,
    limit: Option<usize>,
    offset: usize,
    ledger: Ledger,
}

impl Pager {
    /// Chooses the rows of the page; `None` if a block turned out to be damaged.
    fn attempt<T: FromColumns>(
        &mut self,
        question: &Question,
        sources: &[Source],
    ) -> Result<Option<(Vec<T>, Option<Place>)>> {
        let mut reader = Reader::new(question.schema, sources);
        // One more than asked for, to know whether there is a next page.
        let wanted = self.limit.map(|limit| limit + self.offset + 1);
        let Some(chosen) = self.choose(question, sources, &mut reader, wanted)? else {
            return Ok(None);
        };
        let end = wanted.map_or(chosen.len(), |wanted| chosen.len().min(wanted - 1));
        // Rows of the offset are read like those given: only so does a block that cannot
        // be read leave the same rows out of every page.
        let all: Vec<usize> = (0..question.schema.columns.len()).collect();
        if !reader.load(&mut self.ledger, chosen[..end].iter().copied(), &all)? {
            return Ok(None);
        }
        let page = &chosen[self.offset.min(end)..end];
        let next = if end < chosen.len() {
            match self.next(question.schema, &mut reader, &chosen[..end])? {
                Some(next) => Some(next),
                None => return Ok(None),
            }
        } else {
            None
        };
        let mut rows = Vec::with_capacity(page.len());
        for run in page.chunk_by(|a, b| (a.source, a.block) == (b.source, b.block)) {
            let columns = Columns(reader.place(run[0]).0.iter().flatten().collect());
            let places = run.iter().map(|candidate| reader.place(*candidate).1);
            rows.extend(places.map(|row| T::from_columns(question.table, &columns, row)));
        }
        Ok(Some((rows, next)))
    }

    /// The rows from the cursor on, in order, as many as wanted.
    fn choose(
        &mut self,
        question: &Question,
        sources: &[Source],
        reader: &mut Reader<'_>,
        wanted: Option<usize>,
    ) -> Result<Option<Vec<Candidate>>> {
        let mut chosen = Vec::new();
        let mut range = question.range;
        if let Some(key) = self.place.key.clone() {
            // Rows at the cursor's stamp are compared with its key, older ones all follow.
            let at = TimeRange {
                start: range.start.max(key.stamp),
                end: range.end.min(key.stamp.saturating_add(1)),
            };
            let Some(same) = self.newest(&question.within(at), sources, reader, None)? else {
                return Ok(None);
            };
            let Some(after) = self.after(question.schema, reader, &key, same)? else {
                return Ok(None);
            };
            chosen = after;
            range.end = range.end.min(key.stamp);
        }
        let left = wanted.map(|wanted| wanted.saturating_sub(chosen.len()));
        if left != Some(0) {
            let Some(older) = self.newest(&question.within(range), sources, reader, left)? else {
                return Ok(None);
            };
            chosen.extend(older);
        }
        if let Some(wanted) = wanted {
            chosen.truncate(wanted);
        }
        Ok(Some(chosen))
    }

    /// The newest rows of a question, in order; more than wanted where the last ones tie.
    fn newest(
        &mut self,
        question: &Question,
        sources: &[Source],
        reader: &mut Reader<'_>,
        wanted: Option<usize>,
    ) -> Result<Option<Vec<Candidate>>> {
        if question.range.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let mut best = Best::new(wanted);
        for (number, block) in newest_blocks(question, sources, &mut self.ledger) {
            let source = &sources[number];
            let info = source.segment.blocks()[block];
            if !best.admits(info.max_ts) {
                self.ledger.prune(source, block, &[0]);
                continue;
            }
            let rows = source.block_rows(block);
            let scanned =
                scan_block(question, source, &mut self.ledger, block, from_ref(&rows), &[0])?;
            let Some(scanned) = scanned else { continue };
            let Values::Int(stamps) = &scanned.columns[0].values else {
                return Err(unexpected("timestamp"));
            };
            let place = Candidate { key: 0, source: narrow(number), block: narrow(block), row: 0 };
            offer(&mut best, place, &scanned.rows, stamps);
        }
        let mut found = best.finish();
        Ok(reader.resolve(&mut self.ledger, &mut found)?.then_some(found))
    }

    /// Of rows at the cursor's stamp, those after its row.
    fn after(
        &mut self,
        schema: &'static Schema,
        reader: &mut Reader<'_>,
        key: &RowKey,
        mut rows: Vec<Candidate>,
    ) -> Result<Option<Vec<Candidate>>> {
        if !reader.load(&mut self.ledger, rows.iter().copied(), schema.page_order)? {
            return Ok(None);
        }
        let by_ids = |row: Candidate| {
            let ids = schema.page_order.iter().zip(&key.ids);
            ids.map(|(column, id)| reader.text(row, *column).cmp(id))
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal)
        };
        // Rows descend, so those with greater ids come first, then those with the same.
        let start = rows.partition_point(|row| by_ids(*row).is_gt());
        let end = rows.partition_point(|row| by_ids(*row).is_ge());
        let rest: Vec<usize> = rest(schema).collect();
        if !reader.load(&mut self.ledger, rows[start..end].iter().copied(), &rest)? {
            return Ok(None);
        }
        let hashes: Vec<u128> = rows[start..end].iter().map(|row| reader.hash(*row)).collect();
        let greater = hashes.partition_point(|hash| *hash > key.hash);
        let equal = hashes.partition_point(|hash| *hash >= key.hash) - greater;
        let given = usize::try_from(self.place.equal).map_or(equal, |given| given.min(equal));
        rows.drain(..start + greater + given);
        Ok(Some(rows))
    }

    /// The place after the last of these rows; `None` if a block turned out to be damaged.
    fn next(
        &mut self,
        schema: &'static Schema,
        reader: &mut Reader<'_>,
        given: &[Candidate],
    ) -> Result<Option<Place>> {
        let Some(last) = given.last().copied() else {
            return Ok(Some(self.place.clone()));
        };
        let columns: Vec<usize> = (0..schema.columns.len()).collect();
        if !reader.load(&mut self.ledger, [last], &columns)? {
            return Ok(None);
        }
        let key = RowKey { stamp: last.key, ids: reader.ids(last), hash: reader.hash(last) };
        let mut equal = 0;
        for row in given.iter().rev().take_while(|row| row.key == last.key) {
            if !reader.load(&mut self.ledger, [*row], &columns)? {
                return Ok(None);
            }
            if reader.compare_ids(*row, last).is_ne() || reader.hash(*row) != key.hash {
                break;
            }
            equal += 1;
        }
        if self.place.key.as_ref() == Some(&key) {
            equal += self.place.equal;
        }
        Ok(Some(Place { key: Some(key), equal, ..self.place.clone() }))
    }
}

/// Blocks that may have rows of the question, those with the latest stamps first.
fn newest_blocks(
    question: &Question,
    sources: &[Source],
    ledger: &mut Ledger,
) -> Vec<(usize, usize)> {
    let mut blocks = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        for (block, info) in source.segment.blocks().iter().enumerate() {
            if question.range.overlaps(info.min_ts, info.max_ts) {
                blocks.push((info.max_ts, number, block));
            } else {
                ledger.prune(source, block, &[0]);
            }
        }
    }
    blocks.sort_unstable_by_key(|block| std::cmp::Reverse(*block));
    blocks.into_iter().map(|(_, source, block)| (source, block)).collect()
}

/// Offers rows with a key each, from the last row to the first, since stamps mostly rise.
fn offer(best: &mut Best, place: Candidate, rows: &Selection, keys: &[i64]) {
    let mut end = rows.len();
    while end > 0 {
        let piece: Range<usize> = end.saturating_sub(PIECE_ROWS)..end;
        end = piece.start;
        for position in piece {
            if best.admits(keys[position]) {
                let row = narrow(rows.row(position));
                best.push(Candidate { key: keys[position], row, ..place });
            }
        }
        best.settle();
    }
}
