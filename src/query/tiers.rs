//! What rollups answer, where the rows have gone.
//!
//! Owns which cells of a rollup may stand in an answer: one that lies wholly inside the
//! range and the bucket and has all that the question needs. Nothing is split in
//! proportion; what no cell can say is noted as unanswerable, with the reason.

use std::sync::Arc;

use crate::column::Strings;
use crate::query::answer::Span;
use crate::query::plan::{Ledger, Need, Piece, Question, Scope, Source};
use crate::segment::{Cell, Depth, HourCell, KeyCell, Segment, Tier};
use crate::time::{MICROS_PER_HOUR, TimeRange, Timestamp};

/// The rows are gone, and with them what was asked for.
pub(crate) const DETAIL_GONE: &str = "detail_gone";
/// The rollup does not keep what the filter or the field asks for.
const FILTER_NOT_KEPT: &str = "filter_not_kept";
/// A cell lies only partly inside the range or the bucket.
const CELL_CUT: &str = "cell_cut";

/// A dictionary, and for codes in it a cell and, where it is of the whole file, its key.
pub(crate) type RolledByCode<'a> = (Arc<Strings>, Vec<(u32, &'a Cell, Option<&'a KeyCell>)>);

/// What became of a range that a rollup stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    Missed(&'static str),
}

/// Ranges of rollups, by what became of them.
#[derive(Debug, Default)]
pub(crate) struct TierNotes {
    notes: Vec<(Tier, TimeRange, Outcome)>,
}

impl TierNotes {
    fn add(&mut self, source: &Source, range: TimeRange, outcome: Outcome) {
        self.add_of(source.segment.tier(), range, outcome);
    }

    fn add_of(&mut self, tier: Tier, range: TimeRange, outcome: Outcome) {
        let note = (tier, range, outcome);
        if !range.is_empty() && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The parts of the ranges answered from rollups of a tier that are not missed as well.
    pub(crate) fn answered(&self, tier: Tier) -> Vec<TimeRange> {
        let of_tier = self.notes.iter().filter(|(kept, ..)| *kept == tier);
        let missed = |range: &TimeRange| {
            let mut others = self.notes.iter();
            others
                .any(|(_, other, outcome)| matches!(outcome, Outcome::Missed(_)) && other == range)
        };
        of_tier
            .filter(|(_, range, outcome)| *outcome == Outcome::Answered && !missed(range))
            .map(|(_, range, _)| *range)
            .collect()
    }

    /// What cannot be answered, by time, with reasons.
    pub(crate) fn missed(&self) -> Vec<Span> {
        let mut missed: Vec<(TimeRange, &str)> = self
            .notes
            .iter()
            .filter_map(|(_, range, outcome)| match outcome {
                Outcome::Missed(reason) => Some((*range, *reason)),
                Outcome::Answered => None,
            })
            .collect();
        missed.sort_unstable_by_key(|(range, reason)| (*reason, range.start, range.end));
        let mut joined: Vec<(TimeRange, &str)> = Vec::new();
        for (range, reason) in missed {
            match joined.last_mut() {
                Some((last, same)) if *same == reason && range.start <= last.end => {
                    last.end = last.end.max(range.end);
                }
                _ => joined.push((range, reason)),
            }
        }
        joined.sort_unstable_by_key(|(range, _)| (range.start, range.end));
        let span = |(range, reason): (TimeRange, &str)| Span {
            from: Timestamp::clamped(range.start),
            to: Timestamp::clamped(range.end),
            reason: Some(reason.to_owned()),
        };
        joined.into_iter().map(span).collect()
    }
}

fn both(a: TimeRange, b: TimeRange) -> TimeRange {
    TimeRange { start: a.start.max(b.start), end: a.end.min(b.end) }
}

/// The moments of an hour.
fn hour_range(hour: &HourCell) -> TimeRange {
    let start = hour.hour.saturating_mul(MICROS_PER_HOUR);
    TimeRange { start, end: start.saturating_add(MICROS_PER_HOUR) }
}

impl Ledger {
    /// The pieces of a rollup that can stand in an answer; what cannot is noted.
    pub(crate) fn rolled_pieces(
        &mut self,
        source: &Source,
        question: &Question,
        need: Need,
    ) -> Vec<Piece> {
        let day = both(source.segment.partition().range(), question.range);
        let whole = match source.scope(question) {
            Scope::Everything => Piece::Total,
            Scope::Keys => Piece::Keys,
            Scope::Rows => {
                self.tiers.add(source, day, Outcome::Missed(FILTER_NOT_KEPT));
                return Vec::new();
            }
        };
        let one_bucket = |min: i64, max: i64| {
            need.interval.is_none_or(|every| every.bucket_start(min) == every.bucket_start(max))
        };
        if source.covered && one_bucket(source.stamps.0, source.stamps.1) {
            let offered = source.offers(&whole, need);
            let outcome =
                if offered { Outcome::Answered } else { Outcome::Missed(FILTER_NOT_KEPT) };
            if offered || source.segment.tier() == Tier::Daily {
                self.tiers.add(source, day, outcome);
                return if offered { vec![whole] } else { Vec::new() };
            }
        }
        if source.segment.tier() == Tier::Daily {
            self.tiers.add(source, day, Outcome::Missed(CELL_CUT));
            return Vec::new();
        }
        let depth = if matches!(whole, Piece::Keys) { Depth::Keys } else { Depth::Hours };
        let hours = source.summaries(depth).map_or(&[][..], |all| all.hours.as_slice());
        let mut pieces = Vec::new();
        let mut answered = day;
        for (position, hour) in hours.iter().enumerate() {
            let part = both(hour_range(hour), question.range);
            let (min, max) = source.piece_stamps(&Piece::Hour(position));
            if !question.range.overlaps(min, max) {
                continue;
            }
            let piece = match whole {
                Piece::Keys => source.rolled_hour_keys(position, hour),
                _ => Some(Piece::Hour(position)),
            };
            let outcome = match &piece {
                _ if !question.range.covers(min, max) || !one_bucket(min, max) => {
                    Outcome::Missed(CELL_CUT)
                }
                Some(piece) if source.offers(piece, need) => Outcome::Answered,
                _ => Outcome::Missed(FILTER_NOT_KEPT),
            };
            match (outcome, piece) {
                (Outcome::Answered, Some(piece)) => pieces.push(piece),
                _ => {
                    self.tiers.add(source, part, outcome);
                    // What lies before a part that is missed was answered.
                    let before = TimeRange { end: part.start, ..answered };
                    self.tiers.add(source, before, Outcome::Answered);
                    answered.start = part.end;
                }
            }
        }
        self.tiers.add(source, answered, Outcome::Answered);
        pieces
    }

    /// The cells of a rollup by the values of a dimension; `None`, which is noted, where it
    /// does not keep them.
    pub(crate) fn rolled_by<'a>(
        &mut self,
        source: &'a Source,
        question: &Question,
        key: usize,
    ) -> Option<RolledByCode<'a>> {
        let day = both(source.segment.partition().range(), question.range);
        let not_kept = Outcome::Missed(FILTER_NOT_KEPT);
        if matches!(source.scope(question), Scope::Rows) {
            self.tiers.add(source, day, not_kept);
            return None;
        }
        if source.covered {
            let found = source.cells_by(question, key);
            let outcome = if found.is_some() { Outcome::Answered } else { not_kept };
            self.tiers.add(source, day, outcome);
            let (dictionary, cells) = found?;
            let cells = cells.into_iter().map(|(code, key)| (code, &key.cell, Some(key)));
            return Some((dictionary, cells.collect()));
        }
        if source.segment.tier() == Tier::Daily {
            self.tiers.add(source, day, Outcome::Missed(CELL_CUT));
            return None;
        }
        let coded = source.coded(question);
        let columns: Vec<usize> = coded.iter().map(|(column, _)| *column).chain([key]).collect();
        let level = source.level(question.schema, &columns);
        let dictionary = source.segment.dictionary(key).ok().flatten();
        let (Some(level), Some(dictionary)) = (level, dictionary) else {
            self.tiers.add(source, day, not_kept);
            return None;
        };
        let place = question.schema.keys[level].iter().position(|column| *column == key)?;
        let asked = source.find_cells(question.schema, level, &coded);
        let keys = source.key_cells(level);
        let hours = source.summaries(Depth::Keys).map_or(&[][..], |all| all.hours.as_slice());
        let mut cells = Vec::new();
        for (position, hour) in hours.iter().enumerate() {
            let part = both(hour_range(hour), question.range);
            let (min, max) = source.piece_stamps(&Piece::Hour(position));
            if !question.range.overlaps(min, max) {
                continue;
            }
            let kept = hour.keys.iter().any(|cell| cell.level == level);
            let outcome = match (question.range.covers(min, max), kept) {
                (false, _) => Outcome::Missed(CELL_CUT),
                (true, false) => not_kept,
                (true, true) => Outcome::Answered,
            };
            self.tiers.add(source, part, outcome);
            if outcome != Outcome::Answered {
                continue;
            }
            for cell in hour.keys.iter().filter(|cell| cell.level == level) {
                if asked.binary_search(&cell.key).is_ok()
                    && let Some(code) = keys.get(cell.key).and_then(|key| key.codes.get(place))
                    && (*code as usize) < dictionary.len()
                {
                    cells.push((*code, &cell.cell, None));
                }
            }
        }
        Some((dictionary, cells))
    }

    /// Notes that a rollup has no rows of the question.
    pub(crate) fn rolled_nothing(&mut self, rollup: &dyn Segment, question: &Question) {
        let day = both(rollup.partition().range(), question.range);
        self.tiers.add_of(rollup.tier(), day, Outcome::Answered);
    }

    /// Notes that a question needs rows where only a rollup is left.
    pub(crate) fn rows_are_gone(&mut self, source: &Source, range: TimeRange) {
        let day = both(source.segment.partition().range(), range);
        self.tiers.add(source, day, Outcome::Missed(DETAIL_GONE));
    }
}

impl Source {
    /// The asked keys of an hour of a rollup, which keeps all keys of a level or none.
    fn rolled_hour_keys(&self, position: usize, hour: &HourCell) -> Option<Piece> {
        let keys = self.keys.as_ref()?;
        let of_level = || hour.keys.iter().filter(|cell| cell.level == keys.level);
        of_level().next()?;
        let asked = (0..hour.keys.len()).filter(|cell| {
            let cell = &hour.keys[*cell];
            cell.level == keys.level && keys.cells.binary_search(&cell.key).is_ok()
        });
        Some(Piece::HourKeys(position, asked.collect()))
    }
}
