//! The page of help: keys, marks, and how to record what is not.

use ratatui::text::Span;

use super::fit::pad;
use super::part::{Part, Room, Row};
use crate::dashboard::figures::Level;
use crate::dashboard::lines::how_to_record;
use crate::dashboard::live::keys::KEYS;

pub(super) fn help(room: &Room<'_>) -> Vec<Part> {
    vec![keys(room), marks(room), recording(room)]
}

fn keys(room: &Room<'_>) -> Part {
    let mut part = Part::new(room, "keys", "Esc closes this help");
    for (key, what) in KEYS {
        part.push(Row::new(vec![
            Span::styled(pad(key, 18, false), room.theme.heading()),
            Span::raw(room.cut(what, room.width.saturating_sub(18))),
        ]));
    }
    part
}

fn marks(room: &Room<'_>) -> Part {
    let mut part = Part::new(room, "marks", "");
    let levels = [
        (Level::Good, "as it should be"),
        (Level::Fair, "worth a look: success below 95 %, of an agent 90 %; 1 s; 20 pending; 60 %"),
        (Level::Bad, "bad: success below 90 %, of an agent 80 %; 3 s; 50 pending; 80 %"),
    ];
    for (level, text) in levels {
        let text = room.cut(text, room.width.saturating_sub(3));
        part.push(Row::new(vec![room.theme.marked(level, &text)]));
    }
    for text in [
        "Charts and bars start at 0; a gap is a step without any task.",
        "Of several steps in one column of a chart the largest is drawn.",
        "Times are UTC.",
    ] {
        part.push(Row::text(room.cut(text, room.width)));
    }
    part
}

fn recording(room: &Room<'_>) -> Part {
    let mut part = Part::new(room, "recording", "what is \"not recorded\"");
    let names = &room.app.metrics;
    let priority = format!("{}.high", names.queue_pending);
    let all = [
        ("tasks that wait", &names.queue_pending),
        ("those of a priority", &priority),
        ("tokens that may be used", &names.token_budget),
        ("tokens that each agent may use", &names.agent_token_quota),
        ("memory in use", &names.memory_bytes),
    ];
    for (what, metric) in all {
        part.push(Row::text(room.cut(what, room.width)));
        let command = room.name(&how_to_record(metric), room.width.saturating_sub(2));
        part.push(Row::styled(format!("  {command}"), room.theme.heading()));
    }
    part
}
