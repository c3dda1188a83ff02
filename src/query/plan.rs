//! What a question touches: which segments, which of their summaries, which rows.
//!
//! Owns `Question` (a filter made ready for one table), `Source` (a segment that may
//! hold an answer, with the filter's texts as its codes), `Piece` (a part of a source
//! that one summary or one scan answers) and `Ledger` (what was skipped, read and found
//! damaged). Reads no rows by itself; that is `scan`.

use std::cell::OnceCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use crate::column::{Column, Strings};
use crate::encoding::Chunk;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::Bytes;
use crate::query::answer::{Coverage, Damage, Plan, Span};
use crate::query::filter::Filter;
use crate::query::tiers::TierNotes;
use crate::schema::{ColumnType, Schema, Table};
use crate::segment::{
    Cell, Depth, HourCell, KeyCell, LastValue, Segment, SegmentDamage, Summaries, Tier,
};
use crate::selection::Selection;
use crate::sketch::digest::Digest;
use crate::snapshot::Snapshot;
use crate::time::{Interval, MICROS_PER_HOUR, TimeRange, Timestamp};

/// A set whose hashes an outsider cannot foresee.
pub(crate) type Set<T> = HashSet<T, RandomState>;
/// The same for maps.
pub(crate) type Map<K, V> = hashbrown::HashMap<K, V, RandomState>;

/// A filter made ready for one table.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// The table.
    pub(crate) table: Table,
    /// Its schema.
    pub(crate) schema: &'static Schema,
    /// Which stamps.
    pub(crate) range: TimeRange,
    /// Which texts, by column.
    pub(crate) texts: Vec<(usize, String)>,
    /// Which outcomes.
    pub(crate) success: Option<bool>,
}

impl Question {
    /// Checks the filter against the table and finds its columns.
    pub(crate) fn new(table: Table, filter: &Filter) -> Result<Self> {
        filter.check(table)?;
        let schema = table.schema();
        let texts = [
            ("task_id", &filter.task_id),
            ("agent_id", &filter.agent_id),
            ("swarm_id", &filter.swarm_id),
            ("metric_type", &filter.metric_type),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(name, text)| Some((schema.column(name)?, text.clone()?)))
            .collect();
        Ok(Self { table, schema, range: filter.range()?, texts, success: filter.success })
    }

    /// Whether only time restricts the rows.
    pub(crate) fn is_plain(&self) -> bool {
        self.texts.is_empty() && self.success.is_none()
    }

    /// The same question about other stamps.
    pub(crate) fn within(&self, range: TimeRange) -> Self {
        Self { range, ..self.clone() }
    }
}

/// Where rows of the asked keys lie in one block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    block: u32,
    first: u32,
    span: u32,
    /// Whether all rows of the span belong to the key.
    dense: bool,
}

/// The keys of a segment that a question asks for.
#[derive(Debug)]
pub(crate) struct KeyMatch {
    /// Level in the schema's `keys`.
    pub(crate) level: usize,
    /// Positions in that level's cells.
    pub(crate) cells: Vec<usize>,
    /// Where their rows lie, by block; `None` where the index does not say.
    runs: Option<Vec<Run>>,
}

/// A segment that may hold some of the answer.
#[derive(Debug)]
pub(crate) struct Source {
    /// Position among the table's segments of the snapshot.
    pub(crate) index: usize,
    /// The segment.
    pub(crate) segment: Arc<dyn Segment>,
    /// Its earliest and latest stamp.
    pub(crate) stamps: (i64, i64),
    /// Whether all its stamps are in the range.
    pub(crate) covered: bool,
    /// For each text of the question: its code, where the segment has a dictionary.
    pub(crate) codes: Vec<Option<u32>>,
    /// Its summaries, as far as they were asked for.
    summaries: [OnceCell<Option<Arc<Summaries>>>; 5],
    /// The keys asked for, where the key index knows them.
    pub(crate) keys: Option<KeyMatch>,
}

/// A dictionary, and cells with a code in it each.
pub(crate) type CellsByCode<'a> = (Arc<Strings>, Vec<(u32, &'a KeyCell)>);

/// Which summaries can stand for the rows of a question.
pub(crate) enum Scope {
    /// Those of all rows.
    Everything,
    /// Those of the keys asked for.
    Keys,
    /// None.
    Rows,
}

/// What a summary must offer to stand for its rows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Need {
    /// Its rows must lie in one bucket.
    pub(crate) interval: Option<Interval>,
    /// It must have a digest of this measure (a position in the schema's `measures`).
    pub(crate) digest: Option<usize>,
}

/// A part of a source that is answered in one way.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// All rows, by the summary of the segment.
    Total,
    /// All rows of the keys asked for, by their summaries.
    Keys,
    /// An hour, by its summary.
    Hour(usize),
    /// The keys asked for in an hour: the hour, and positions in its `keys`.
    HourKeys(usize, Vec<usize>),
    /// Rows that must be scanned.
    Rows(Vec<Range<u64>>),
}

impl Source {
    /// `None` if the segment holds nothing that the question asks for.
    fn new(question: &Question, index: usize, segment: &Arc<dyn Segment>) -> Option<Self> {
        let stamps = segment.stamps()?;
        if !question.range.overlaps(stamps.0, stamps.1) {
            return None;
        }
        let mut codes = Vec::with_capacity(question.texts.len());
        for (column, text) in &question.texts {
            if !segment.might_contain(*column, text) {
                return None;
            }
            // A dictionary that cannot be read shows again, as damage, when rows are.
            let dictionary = match question.schema.columns[*column].kind {
                ColumnType::Dimension => segment.dictionary(*column).ok().flatten(),
                _ => None,
            };
            codes.push(match dictionary {
                Some(dictionary) => Some(dictionary.find_sorted(text)?),
                None => None,
            });
        }
        let mut source = Self {
            index,
            segment: Arc::clone(segment),
            stamps,
            covered: question.range.covers(stamps.0, stamps.1),
            codes,
            summaries: Default::default(),
            keys: None,
        };
        source.keys = source.match_keys(question);
        let none = source.keys.as_ref().is_some_and(|keys| keys.cells.is_empty());
        (!none).then_some(source)
    }

    /// The summaries of the segment, so far and no further.
    pub(crate) fn summaries(&self, depth: Depth) -> Option<&Summaries> {
        let loaded = self.summaries.iter().skip(depth as usize).find_map(OnceCell::get);
        let load = || self.summaries[depth as usize].get_or_init(|| self.segment.summaries(depth));
        loaded.unwrap_or_else(load).as_deref()
    }

    /// Finds the keys asked for in the coarsest level that has all the coded columns.
    fn match_keys(&self, question: &Question) -> Option<KeyMatch> {
        let coded = self.coded(question);
        if coded.is_empty() {
            return None;
        }
        let columns: Vec<usize> = coded.iter().map(|(column, _)| *column).collect();
        let level = self.level(question.schema, &columns)?;
        let found = self.find_cells(question.schema, level, &coded);
        let runs = collect_runs(self.key_cells(level), &found);
        Some(KeyMatch { level, cells: found, runs })
    }

    /// The dimensions that the question fixes, with their codes.
    pub(crate) fn coded(&self, question: &Question) -> Vec<(usize, u32)> {
        let texts = question.texts.iter().zip(&self.codes);
        texts.filter_map(|((column, _), code)| Some((*column, (*code)?))).collect()
    }

    /// Positions of the cells of a level that have these codes in these columns.
    pub(crate) fn find_cells(
        &self,
        schema: &Schema,
        level: usize,
        coded: &[(usize, u32)],
    ) -> Vec<usize> {
        let cells = self.key_cells(level);
        let wanted: Vec<Option<u32>> = schema.keys[level]
            .iter()
            .map(|column| coded.iter().find(|(coded, _)| coded == column).map(|(_, code)| *code))
            .collect();
        // Cells ascend by their codes, so the leading columns that are asked for cut a range.
        let prefix: Vec<u32> = wanted.iter().map_while(|code| *code).collect();
        let leading = |cell: &KeyCell| {
            let codes = cell.codes.get(..prefix.len()).unwrap_or(&cell.codes);
            codes.cmp(&prefix[..])
        };
        let start = cells.partition_point(|cell| leading(cell).is_lt());
        let end = cells.partition_point(|cell| leading(cell).is_le());
        let is_wanted = |cell: &KeyCell| {
            wanted.iter().zip(&cell.codes).all(|(code, have)| code.is_none_or(|code| code == *have))
        };
        (start..end).filter(|cell| is_wanted(&cells[*cell])).collect()
    }

    /// Whether cells by the dimension `key` stand for all rows of the source, and all are
    /// meant.
    pub(crate) fn is_summed_by(&self, question: &Question, key: usize) -> bool {
        self.covered && question.is_plain() && self.level(question.schema, &[key]).is_some()
    }

    /// The cells of all rows of the question, one or more per value of the dimension
    /// `key`, with the value's code and the dictionary; `None` if rows must be scanned.
    pub(crate) fn cells_by(&self, question: &Question, key: usize) -> Option<CellsByCode<'_>> {
        if !self.covered || matches!(self.scope(question), Scope::Rows) {
            return None;
        }
        let coded = self.coded(question);
        let columns: Vec<usize> = coded.iter().map(|(column, _)| *column).chain([key]).collect();
        let level = self.level(question.schema, &columns)?;
        let position = question.schema.keys[level].iter().position(|column| *column == key)?;
        let dictionary = self.segment.dictionary(key).ok()??;
        let cells = self.key_cells(level);
        let found = self.find_cells(question.schema, level, &coded);
        let by_code = found.into_iter().map(|cell| {
            let cell = &cells[cell];
            let code = *cell.codes.get(position)?;
            ((code as usize) < dictionary.len()).then_some((code, cell))
        });
        let by_code = by_code.collect::<Option<Vec<_>>>()?;
        Some((dictionary, by_code))
    }

    /// The newest value of a measure among the rows of the question, where the index knows
    /// it; `None` if rows must be looked at.
    pub(crate) fn known_newest(&self, question: &Question, measure: usize) -> Option<LastValue> {
        if !self.covered {
            return None;
        }
        match self.scope(question) {
            Scope::Everything => self.segment.newest(measure),
            Scope::Keys => {
                let values = self.asked_cells().filter_map(|cell| *cell.last.get(measure)?);
                values.max_by_key(|value| (value.timestamp, value.order_key))
            }
            Scope::Rows => None,
        }
    }

    /// The coarsest level of keys that has all the columns and is kept.
    pub(crate) fn level(&self, schema: &Schema, columns: &[usize]) -> Option<usize> {
        (0..schema.keys.len()).find(|level| {
            columns.iter().all(|column| schema.keys[*level].contains(column))
                && !self.key_cells(*level).is_empty()
        })
    }

    /// The keys of a level, ascending by codes; none if they are not kept.
    pub(crate) fn key_cells(&self, level: usize) -> &[KeyCell] {
        let all = self.summaries(Depth::Keys);
        all.and_then(|all| all.keys.get(level)).map_or(&[], Vec::as_slice)
    }

    /// Which summaries can stand for the rows of the question.
    pub(crate) fn scope(&self, question: &Question) -> Scope {
        if question.is_plain() {
            return Scope::Everything;
        }
        // A level that has all coded columns has all columns if every text has a code.
        let all_coded = self.codes.iter().all(Option::is_some);
        match &self.keys {
            Some(_) if question.success.is_none() && all_coded => Scope::Keys,
            _ => Scope::Rows,
        }
    }

    /// Cuts the source into summaries that hold all that is needed, and rows.
    pub(crate) fn pieces(&self, question: &Question, need: Need) -> Vec<Piece> {
        let everything = || vec![Piece::Rows(self.all_rows())];
        let scope = self.scope(question);
        let depth = match scope {
            Scope::Everything => Depth::Hours,
            Scope::Keys | Scope::Rows => Depth::Keys,
        };
        let Some(summaries) = self.summaries(depth) else { return everything() };
        let whole = match scope {
            Scope::Everything => Piece::Total,
            Scope::Keys => Piece::Keys,
            Scope::Rows => return everything(),
        };
        let in_one_bucket = |min: i64, max: i64| {
            need.interval.is_none_or(|every| every.bucket_start(min) == every.bucket_start(max))
        };
        if self.covered && in_one_bucket(self.stamps.0, self.stamps.1) && self.offers(&whole, need)
        {
            return vec![whole];
        }
        if summaries.hours.is_empty() {
            return everything();
        }
        let mut pieces = Vec::new();
        let mut ragged: Vec<Range<u64>> = Vec::new();
        for (position, hour) in summaries.hours.iter().enumerate() {
            let start = hour.hour.saturating_mul(MICROS_PER_HOUR);
            let min = start.max(self.stamps.0);
            let max = start.saturating_add(MICROS_PER_HOUR - 1).min(self.stamps.1);
            if !question.range.overlaps(min, max) {
                continue;
            }
            let piece = match scope {
                Scope::Everything => Some(Piece::Hour(position)),
                _ => self.hour_keys(position, hour),
            };
            match piece {
                Some(piece)
                    if question.range.covers(min, max)
                        && in_one_bucket(min, max)
                        && self.offers(&piece, need) =>
                {
                    pieces.push(piece);
                }
                _ => push_range(&mut ragged, self.hour_rows(position)),
            }
        }
        if !ragged.is_empty() {
            pieces.push(Piece::Rows(ragged));
        }
        pieces
    }

    /// The asked keys of an hour, if the hour has cells of all of them.
    fn hour_keys(&self, position: usize, hour: &HourCell) -> Option<Piece> {
        let keys = self.keys.as_ref()?;
        let found: Vec<usize> = (0..hour.keys.len())
            .filter(|cell| {
                let cell = &hour.keys[*cell];
                cell.level == keys.level && keys.cells.binary_search(&cell.key).is_ok()
            })
            .collect();
        (found.len() == keys.cells.len()).then_some(Piece::HourKeys(position, found))
    }

    /// Positions of all rows, as one range.
    pub(crate) fn all_rows(&self) -> Vec<Range<u64>> {
        std::iter::once(0..self.segment.rows()).collect()
    }

    /// All rows of a block, counted from its first.
    pub(crate) fn block_rows(&self, block: usize) -> Range<usize> {
        0..self.segment.blocks()[block].rows as usize
    }

    /// Positions of the rows of an hour.
    fn hour_rows(&self, position: usize) -> Range<u64> {
        let hours = self.summaries(Depth::Hours).map_or(&[][..], |all| all.hours.as_slice());
        let start = hours.get(position).map_or(0, |hour| hour.first_row);
        start..hours.get(position + 1).map_or_else(|| self.segment.rows(), |next| next.first_row)
    }

    /// Parts of the rows, with the earliest and latest stamp that each may have: hours where
    /// they are known, whose rows are together, else blocks.
    pub(crate) fn parts(&self) -> Vec<((i64, i64), Range<u64>)> {
        let hours = self.summaries(Depth::Hours).map_or(0, |all| all.hours.len());
        if hours == 0 {
            let blocks = self.segment.blocks().iter().map(|info| {
                let rows = info.first_row..info.first_row + u64::from(info.rows);
                ((info.min_ts, info.max_ts), rows)
            });
            return blocks.collect();
        }
        let hour = |hour| (self.piece_stamps(&Piece::Hour(hour)), self.hour_rows(hour));
        (0..hours).map(hour).collect()
    }

    /// Positions of the rows that a piece stands for.
    pub(crate) fn piece_rows(&self, piece: &Piece) -> Vec<Range<u64>> {
        match piece {
            Piece::Total | Piece::Keys => self.all_rows(),
            Piece::Hour(hour) | Piece::HourKeys(hour, _) => vec![self.hour_rows(*hour)],
            Piece::Rows(rows) => rows.clone(),
        }
    }

    /// Earliest and latest stamp that rows of a piece may have.
    pub(crate) fn piece_stamps(&self, piece: &Piece) -> (i64, i64) {
        let hours = self.summaries(Depth::Hours).map_or(&[][..], |all| all.hours.as_slice());
        match piece {
            Piece::Hour(hour) | Piece::HourKeys(hour, _) => {
                let start = hours
                    .get(*hour)
                    .map_or(self.stamps.0, |cell| cell.hour.saturating_mul(MICROS_PER_HOUR));
                let end = start.saturating_add(MICROS_PER_HOUR - 1);
                (start.max(self.stamps.0), end.min(self.stamps.1))
            }
            _ => self.stamps,
        }
    }

    /// The cells of a summarised piece; none for rows.
    pub(crate) fn cells(&self, piece: &Piece) -> Vec<&Cell> {
        let depth = match piece {
            Piece::HourKeys(..) => Depth::Keys,
            _ => Depth::Hours,
        };
        let Some(summaries) = self.summaries(depth) else { return Vec::new() };
        match piece {
            Piece::Total => vec![&summaries.total],
            Piece::Keys => self.asked_cells().map(|key| &key.cell).collect(),
            Piece::Hour(hour) => {
                summaries.hours.get(*hour).map(|hour| &hour.cell).into_iter().collect()
            }
            Piece::HourKeys(hour, keys) => {
                let hour = summaries.hours.get(*hour);
                keys.iter().filter_map(|key| Some(&hour?.keys.get(*key)?.cell)).collect()
            }
            Piece::Rows(_) => Vec::new(),
        }
    }

    /// The cells of the keys asked for.
    pub(crate) fn asked_cells(&self) -> impl Iterator<Item = &KeyCell> {
        self.keys.iter().flat_map(|keys| {
            let cells = self.key_cells(keys.level);
            keys.cells.iter().filter_map(move |cell| cells.get(*cell))
        })
    }

    /// The digests that together describe a summarised piece; `None` if one is missing.
    pub(crate) fn digests(&self, piece: &Piece, measure: usize) -> Option<Vec<Arc<Digest>>> {
        fn one(
            digests: Option<&Vec<Option<Arc<Digest>>>>,
            cell: &Cell,
            measure: usize,
        ) -> Option<Vec<Arc<Digest>>> {
            let stats = &cell.measures[measure];
            if stats.rows == stats.nulls {
                return Some(Vec::new());
            }
            Some(vec![digests?.get(measure)?.clone()?])
        }
        let summaries = self.summaries(match piece {
            Piece::Keys | Piece::HourKeys(..) => Depth::All,
            Piece::Total => Depth::Total,
            Piece::Hour(_) | Piece::Rows(_) => Depth::Digests,
        })?;
        match piece {
            Piece::Total => one(Some(&summaries.digests), &summaries.total, measure),
            Piece::Hour(hour) => {
                let hour = summaries.hours.get(*hour)?;
                one(Some(&hour.digests), &hour.cell, measure)
            }
            Piece::Keys => {
                let keys = self.keys.as_ref()?;
                let cells = self.key_cells(keys.level);
                let digests = summaries.key_digests.get(keys.level);
                let mut all = Vec::new();
                for key in &keys.cells {
                    let of_key = digests.and_then(|level| level.get(*key));
                    all.extend(one(of_key, &cells.get(*key)?.cell, measure)?);
                }
                Some(all)
            }
            Piece::HourKeys(hour, keys) => {
                let hour = summaries.hours.get(*hour)?;
                let mut all = Vec::new();
                for key in keys {
                    let cell = hour.keys.get(*key)?;
                    all.extend(one(Some(&cell.digests), &cell.cell, measure)?);
                }
                Some(all)
            }
            Piece::Rows(_) => None,
        }
    }

    /// Whether a summarised piece has what is needed.
    pub(crate) fn offers(&self, piece: &Piece, need: Need) -> bool {
        need.digest.is_none_or(|measure| self.digests(piece, measure).is_some())
    }

    /// Where in a block the asked keys may have rows, and whether those rows are theirs
    /// alone; `None` where the index does not say.
    pub(crate) fn runs_in(&self, block: usize) -> Option<(Vec<Range<usize>>, bool)> {
        let runs = self.keys.as_ref()?.runs.as_ref()?;
        let block = u32::try_from(block).ok()?;
        let start = runs.partition_point(|run| run.block < block);
        let end = runs.partition_point(|run| run.block <= block);
        let mut ranges: Vec<Range<usize>> = Vec::with_capacity(end - start);
        let mut dense = true;
        for run in &runs[start..end] {
            let first = run.first as usize;
            let mut range = first..first + run.span as usize;
            if let Some(last) = ranges.last_mut()
                && range.start < last.end
            {
                // Keys that lie among each other: their spans overlap, so none is dense.
                range = last.start..range.end.max(last.end);
                *last = range;
                dense = false;
            } else {
                ranges.push(range);
            }
            dense &= run.dense;
        }
        Some((ranges, dense))
    }
}

/// Runs of the cells by block and first row; `None` unless they account for all rows.
fn collect_runs(cells: &[KeyCell], found: &[usize]) -> Option<Vec<Run>> {
    let mut runs = Vec::new();
    for cell in found {
        let cell = &cells[*cell];
        let rows: u64 = cell.runs.iter().map(|run| u64::from(run.rows)).sum();
        if rows != cell.cell.rows {
            return None;
        }
        runs.extend(cell.runs.iter().map(|run| Run {
            block: run.block,
            first: run.first,
            span: run.span,
            dense: run.rows == run.span,
        }));
    }
    runs.sort_unstable_by_key(|run| (run.block, run.first));
    Some(runs)
}

/// Appends a range, joining it to the one before where they touch.
fn push_range(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ if range.start < range.end => ranges.push(range),
        _ => {}
    }
}

/// Whether an answer is made of rows, or of what rows add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Rows: those that can be read are right by themselves.
    Rows,
    /// A figure: wrong if some rows are missing, unless the caller allows that.
    Figure,
}

/// What was skipped, summarised, read and found damaged on the way to an answer.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The counters of the answer.
    pub(crate) plan: Plan,
    range: TimeRange,
    coverage: Coverage,
    damaged: Set<(usize, usize)>,
    scanned: Set<(usize, usize)>,
    /// Segment, block and column of the chunks that were used.
    touched: Set<(usize, usize, usize)>,
    /// Segment, block, rows and bytes of what was left out by one pass; another pass may
    /// have left it out too, or read it.
    pruned: Vec<(usize, usize, u64, u64)>,
    /// Rollups that may hold some of the answer.
    rollups: Rc<[Source]>,
    /// Whether they were asked.
    rollups_asked: bool,
    /// What became of what they stand for.
    pub(crate) tiers: TierNotes,
    /// Why there is no answer: a file had been deleted before it was opened.
    gone: Option<Error>,
    /// What kind of error the damage is: `Corrupt` where it is of several.
    kind: Option<ErrorKind>,
}

impl Ledger {
    /// Opens the books: all segments, what is gone, what is known to be damaged.
    pub(crate) fn new(snapshot: &Snapshot, question: &Question) -> Self {
        let mut ledger = Self {
            plan: Plan::default(),
            range: question.range,
            coverage: Coverage::default(),
            damaged: Set::default(),
            scanned: Set::default(),
            touched: Set::default(),
            pruned: Vec::new(),
            rollups: Rc::default(),
            rollups_asked: false,
            tiers: TierNotes::default(),
            gone: None,
            kind: None,
        };
        let range = question.range;
        let mut days = Vec::new();
        for segment in snapshot.segments(question.table) {
            ledger.plan.segments.add(segment.rows(), segment.bytes());
            let day = segment.partition().range();
            for damage in segment.damage() {
                ledger.note_known(range, &segment.file(), day, &damage, ErrorKind::Corrupt);
            }
            if segment.stamps().is_some() {
                days.push(day);
            }
        }
        for file in snapshot.file_damage(question.table) {
            ledger.note_known(range, &file.file, file.range, &file.damage, file.kind);
        }
        ledger.coverage.detail = spans(range, days);
        ledger.coverage.gone = spans(range, snapshot.gone(question.table).to_vec());
        let damaged = spans(range, snapshot.damaged_gone(question.table).to_vec());
        let damaged =
            damaged.into_iter().map(|span| Span { reason: Some("damaged".into()), ..span });
        ledger.coverage.gone.extend(damaged);
        ledger.open_rollups(snapshot, question);
        ledger
    }

    fn open_rollups(&mut self, snapshot: &Snapshot, question: &Question) {
        let mut sources = Vec::new();
        for (index, segment) in snapshot.rollups(question.table).iter().enumerate() {
            self.plan.segments.add(segment.rows(), segment.bytes());
            let day = segment.partition().range();
            if !question.range.overlaps(day.start, day.end - 1) {
                self.plan.segments_pruned.add(segment.rows(), segment.bytes());
                continue;
            }
            // Nothing but its summaries is in it: unreadable, all of it is.
            if segment.summaries(Depth::Hours).is_none() {
                self.note_rollup(question.range, segment.as_ref());
                continue;
            }
            match Source::new(question, index, segment) {
                Some(source) => sources.push(source),
                None => {
                    self.plan.segments_pruned.add(segment.rows(), segment.bytes());
                    self.rolled_nothing(segment.as_ref(), question);
                }
            }
        }
        self.rollups = sources.into();
    }

    /// The rollups that may hold some of the answer.
    pub(crate) fn rollups(&mut self) -> Rc<[Source]> {
        self.rollups_asked = true;
        Rc::clone(&self.rollups)
    }

    /// Takes note of a rollup that cannot be read.
    fn note_rollup(&mut self, range: TimeRange, rollup: &dyn Segment) {
        let (mut damage, mut kind) = (rollup.damage(), ErrorKind::Corrupt);
        match rollup.unread().filter(|_| damage.is_empty()) {
            Some(error) if error.kind() == ErrorKind::SnapshotGone => self.gone = Some(error),
            Some(error) => {
                kind = error.kind();
                damage.push(SegmentDamage {
                    rows: Some(rollup.rows()),
                    stamps: rollup.stamps(),
                    ..SegmentDamage::unknown(error.to_string())
                });
            }
            None => {}
        }
        let day = rollup.partition().range();
        for damage in &damage {
            self.note_known(range, &rollup.file(), day, damage, kind);
        }
    }

    fn note_kind(&mut self, kind: ErrorKind) {
        let kind = if kind == ErrorKind::Torn { ErrorKind::Corrupt } else { kind };
        let is_same = self.kind.is_none_or(|before| before == kind);
        self.kind = Some(if is_same { kind } else { ErrorKind::Corrupt });
    }

    fn note_known(
        &mut self,
        range: TimeRange,
        file: &str,
        day: TimeRange,
        damage: &SegmentDamage,
        kind: ErrorKind,
    ) {
        // Damage to what is derived costs no row, and no answer.
        if damage.rows == Some(0) {
            return;
        }
        let (min, max) = damage.stamps.unwrap_or((day.start, day.end - 1));
        if range.overlaps(min, max) {
            self.note_kind(kind);
            self.coverage.damaged.push(Damage {
                from: Timestamp::clamped(min),
                to: Timestamp::clamped(max.saturating_add(1)),
                file: file.to_owned(),
                block: damage.block,
                rows: damage.rows,
                reason: damage.reason.clone(),
            });
        }
    }

    /// The segments that may hold some of the answer; counts the others as pruned.
    pub(crate) fn sources(&mut self, snapshot: &Snapshot, question: &Question) -> Vec<Source> {
        let mut sources = Vec::new();
        for (index, segment) in snapshot.segments(question.table).iter().enumerate() {
            match Source::new(question, index, segment) {
                Some(source) => sources.push(source),
                None => self.plan.segments_pruned.add(segment.rows(), segment.bytes()),
            }
        }
        sources
    }

    /// Reads some rows of a column chunk; `None` if it is damaged, which is noted.
    pub(crate) fn read_rows(
        &mut self,
        source: &Source,
        block: usize,
        column: usize,
        rows: &Selection,
    ) -> Result<Option<Column>> {
        self.with_chunk(source, block, column, |chunk, dictionary| {
            chunk.decode_some(rows, dictionary)
        })
    }

    /// What `each` makes of a column chunk; `None` if it is damaged, which is noted.
    pub(crate) fn with_chunk<T>(
        &mut self,
        source: &Source,
        block: usize,
        column: usize,
        mut each: impl FnMut(&Chunk<'_>, Option<&Arc<Strings>>) -> Result<T>,
    ) -> Result<Option<T>> {
        self.with_bytes(source, block, column, |chunk, _, dictionary| each(chunk, dictionary))
    }

    /// What `each` makes of a column chunk and its bytes, as [`with_chunk`](Self::with_chunk).
    pub(crate) fn with_bytes<T>(
        &mut self,
        source: &Source,
        block: usize,
        column: usize,
        mut each: impl FnMut(&Chunk<'_>, &Bytes, Option<&Arc<Strings>>) -> Result<T>,
    ) -> Result<Option<T>> {
        if self.is_damaged(source, block) {
            return Ok(None);
        }
        let info = source.segment.blocks()[block];
        let mut made = None;
        let used = source.segment.with_chunk(block, column, &mut |chunk, bytes, dictionary| {
            if chunk.rows() != info.rows as usize {
                let message = format!("{} values in a block of {} rows", chunk.rows(), info.rows);
                return Err(Error::corrupt("4.1", message));
            }
            made = Some(each(chunk, bytes, dictionary)?);
            Ok(())
        });
        match used {
            Ok(()) => {
                if self.scanned.insert((source.index, block)) {
                    self.plan.blocks_scanned.add(u64::from(info.rows), 0);
                }
                if self.touched.insert((source.index, block, column)) {
                    self.plan.blocks_scanned.bytes += source.segment.chunk_bytes(block, column);
                }
                Ok(made)
            }
            // Torn: bytes of a sealed segment that are not there, or that a lost write left zero.
            Err(error)
                if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Torn | ErrorKind::Io) =>
            {
                self.note_block(source, block, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn note_block(&mut self, source: &Source, block: usize, error: &Error) {
        self.damaged.insert((source.index, block));
        let info = source.segment.blocks()[block];
        let file = source.segment.file();
        let known = |damage: &Damage| damage.block == Some(block as u64) && damage.file == file;
        if self.coverage.damaged.iter().any(known) {
            return;
        }
        self.note_kind(error.kind());
        self.coverage.damaged.push(Damage {
            from: Timestamp::clamped(info.min_ts),
            to: Timestamp::clamped(info.max_ts.saturating_add(1)),
            file,
            block: Some(block as u64),
            rows: Some(u64::from(info.rows)),
            reason: error.to_string(),
        });
    }

    /// Whether the block was found damaged.
    pub(crate) fn is_damaged(&self, source: &Source, block: usize) -> bool {
        !self.damaged.is_empty() && self.damaged.contains(&(source.index, block))
    }

    /// Whether any block of the source was found damaged.
    pub(crate) fn has_damage(&self, source: &Source) -> bool {
        self.damaged.iter().any(|(index, _)| *index == source.index)
    }

    /// Number of blocks found damaged so far.
    pub(crate) fn damaged_blocks(&self) -> usize {
        self.damaged.len()
    }

    /// Counts a block that was left out.
    pub(crate) fn prune(&mut self, source: &Source, block: usize, columns: &[usize]) {
        let bytes = columns.iter().map(|column| source.segment.chunk_bytes(block, *column)).sum();
        let rows = u64::from(source.segment.blocks()[block].rows);
        self.pruned.push((source.index, block, rows, bytes));
    }

    /// Counts the rows of a summarised piece.
    pub(crate) fn summarise(&mut self, cells: &[&Cell]) {
        for cell in cells {
            self.plan.summarised.add(cell.rows, 0);
        }
    }

    /// Forgets which blocks were left out, before the same are gone through again.
    pub(crate) fn start_over(&mut self) {
        self.pruned.clear();
    }

    /// Closes the books.
    ///
    /// # Errors
    ///
    /// `Corrupt` for a figure over damage unless the filter allows a partial one, and for
    /// anything over damage when it is strict; `Incomplete` when it is strict and rows are
    /// missing for another reason; `SnapshotGone`.
    pub(crate) fn finish(mut self, filter: &Filter, shape: Shape) -> Result<(Coverage, Plan)> {
        if let Some(gone) = self.gone {
            return Err(gone);
        }
        if !self.rollups_asked {
            let (rollups, range) = (Rc::clone(&self.rollups), self.range);
            rollups.iter().for_each(|source| self.rows_are_gone(source, range));
        }
        self.coverage.hourly = spans(self.range, self.tiers.answered(Tier::Hourly));
        self.coverage.daily = spans(self.range, self.tiers.answered(Tier::Daily));
        self.coverage.unanswerable = self.tiers.missed();
        self.pruned.sort_unstable();
        self.pruned.dedup_by_key(|(segment, block, ..)| (*segment, *block));
        for (segment, block, rows, bytes) in self.pruned {
            if !self.scanned.contains(&(segment, block)) {
                self.plan.blocks_pruned.add(rows, bytes);
            }
        }
        self.coverage.damaged.sort_by(|a, b| {
            (a.from, &a.file, a.block, a.to).cmp(&(b.from, &b.file, b.block, b.to))
        });
        let coverage = self.coverage;
        if let (Shape::Figure, false, Some(first)) =
            (shape, filter.allow_partial, coverage.damaged.first())
        {
            let kind = self.kind.unwrap_or(ErrorKind::Corrupt);
            return Err(Error::new(kind, describe(first, coverage.damaged.len()))
                .with_path(std::path::Path::new(&first.file))
                .with_remedy("allow a partial answer to have what the readable rows give"));
        }
        if filter.strict && !coverage.is_complete() {
            let kind = self.kind.unwrap_or(ErrorKind::Incomplete);
            return Err(Error::new(kind, missing(&coverage)));
        }
        Ok((coverage, self.plan))
    }
}

fn describe(damage: &Damage, count: usize) -> String {
    let block = damage.block.map_or_else(String::new, |block| format!("block {block}: "));
    let rows = damage.rows.map_or_else(|| "rows".into(), |rows| format!("{rows} rows"));
    let others = match count {
        0 | 1 => String::new(),
        _ => format!(", and {} more places", count - 1),
    };
    format!(
        "{block}{}; {rows} from {} to {} unreadable{others}",
        damage.reason, damage.from, damage.to
    )
}

fn missing(coverage: &Coverage) -> String {
    let mut parts = Vec::new();
    if let Some(span) = coverage.gone.first() {
        parts.push(format!("rows from {} to {} have expired", span.from, span.to));
    }
    if let Some(damage) = coverage.damaged.first() {
        parts.push(format!("{}: {}", damage.file, describe(damage, coverage.damaged.len())));
    }
    if let Some(span) = coverage.unanswerable.first() {
        parts.push(format!("{} to {} cannot answer this", span.from, span.to));
    }
    format!("the answer would be incomplete: {}", parts.join("; "))
}

/// The parts of the days inside the range, joined where they touch.
fn spans(range: TimeRange, mut days: Vec<TimeRange>) -> Vec<Span> {
    days.sort_unstable_by_key(|day| (day.start, day.end));
    let mut joined: Vec<TimeRange> = Vec::new();
    for day in days {
        let day = TimeRange { start: day.start.max(range.start), end: day.end.min(range.end) };
        if day.is_empty() {
            continue;
        }
        match joined.last_mut() {
            Some(last) if day.start <= last.end => last.end = last.end.max(day.end),
            _ => joined.push(day),
        }
    }
    joined
        .into_iter()
        .map(|part| Span {
            from: Timestamp::clamped(part.start),
            to: Timestamp::clamped(part.end),
            reason: None,
        })
        .collect()
}
