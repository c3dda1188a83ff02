//! How things look: colours, marks and glyphs.
//!
//! Owns every style and every character that is not a letter. Only the sixteen colours of the
//! terminal on its own background, so that light and dark both work, and a mark beside every
//! colour, so that nothing is said by colour alone.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;

use crate::dashboard::figures::Level;
use crate::dashboard::{environment, is_utf8};

/// Characters that are not letters.
#[derive(Debug)]
pub(super) struct Glyphs {
    /// Beside what is good, fair and bad.
    marks: [&'static str; 3],
    /// Before a change upwards and downwards.
    pub(super) arrows: [&'static str; 2],
    /// Line after a heading.
    pub(super) rule: &'static str,
    /// Where text was cut off.
    pub(super) ellipsis: &'static str,
    /// Filled and empty part of a bar.
    pub(super) bar: [&'static str; 2],
    /// Heights of a chart's column, from the lowest to the full one.
    pub(super) heights: [&'static str; 8],
    /// Before the agent that is chosen.
    pub(super) chosen: &'static str,
    /// Beside the column that a list is ordered by: smallest first, largest first.
    pub(super) orders: [&'static str; 2],
}

const UNICODE: Glyphs = Glyphs {
    marks: ["\u{2713}", "\u{25b2}", "\u{2717}"],
    arrows: ["\u{2191}", "\u{2193}"],
    rule: "\u{2500}",
    ellipsis: "\u{2026}",
    bar: ["\u{2588}", "\u{2591}"],
    heights: [
        "\u{2581}", "\u{2582}", "\u{2583}", "\u{2584}", "\u{2585}", "\u{2586}", "\u{2587}",
        "\u{2588}",
    ],
    chosen: "\u{25b8}",
    orders: ["\u{2191}", "\u{2193}"],
};

const ASCII: Glyphs = Glyphs {
    marks: ["ok", "!", "!!"],
    arrows: ["^", "v"],
    rule: "-",
    ellipsis: "...",
    bar: ["#", "."],
    heights: ["_", ".", ":", "-", "=", "+", "*", "#"],
    chosen: ">",
    orders: ["^", "v"],
};

/// What the terminal can show.
#[derive(Debug)]
pub(super) struct Theme {
    pub(super) glyphs: &'static Glyphs,
    has_colour: bool,
}

impl Theme {
    /// By the environment, and by `--ascii`.
    pub(super) fn of_environment(is_ascii: bool) -> Self {
        Self::chosen_by(is_ascii, environment)
    }

    fn chosen_by(is_ascii: bool, variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let is_dumb = set("TERM").is_some_and(|term| term == "dumb");
        Self::new(is_ascii || !is_utf8(&variable), set("NO_COLOR").is_none() && !is_dumb)
    }

    pub(super) fn new(is_ascii: bool, has_colour: bool) -> Self {
        Self { glyphs: if is_ascii { &ASCII } else { &UNICODE }, has_colour }
    }

    /// The character beside a level.
    pub(super) fn mark(&self, level: Level) -> &'static str {
        let [good, fair, bad] = self.glyphs.marks;
        match level {
            Level::Good => good,
            Level::Fair => fair,
            Level::Bad => bad,
        }
    }

    /// Text of a level. Yellow is never bold: terminals would show the bright one, which is not
    /// to be read on white.
    pub(super) fn level(&self, level: Level) -> Style {
        match (level, self.has_colour) {
            (Level::Good, true) => Style::new().fg(Color::Green),
            (Level::Fair, true) => Style::new().fg(Color::Yellow),
            (Level::Bad, true) => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            (Level::Good, false) => Style::new(),
            (Level::Fair, false) => Style::new().add_modifier(Modifier::BOLD),
            (Level::Bad, false) => Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED),
        }
    }

    /// A text with its mark before it.
    pub(super) fn marked(&self, level: Level, text: &str) -> Span<'static> {
        Span::styled(format!("{} {text}", self.mark(level)), self.level(level))
    }

    /// Headings and keys.
    pub(super) fn heading(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What is read second.
    pub(super) fn secondary(&self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Charts and bars without a level.
    pub(super) fn chart(&self) -> Style {
        if self.has_colour { Style::new().fg(Color::Cyan) } else { Style::new() }
    }

    /// What is chosen, and where text is typed.
    pub(super) fn chosen(&self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> (bool, bool) {
        let theme = Theme::chosen_by(false, |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        (theme.glyphs.rule == "-", theme.has_colour)
    }

    #[test]
    fn the_environment_decides() {
        assert_eq!(of(&[("LANG", "en_US.UTF-8")]), (false, true));
        assert_eq!(of(&[("LC_ALL", "C.utf8"), ("LANG", "C")]), (false, true));
        assert_eq!(of(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]), (true, true));
        assert_eq!(of(&[("LC_ALL", ""), ("LC_CTYPE", "C.UTF-8")]), (false, true));
        assert_eq!(of(&[]), (true, true));
        assert_eq!(of(&[("NO_COLOR", "1")]), (true, false));
        assert_eq!(of(&[("NO_COLOR", "")]), (true, true));
        assert_eq!(of(&[("TERM", "dumb")]), (true, false));
    }

    #[test]
    fn levels_differ_without_colour_and_yellow_is_not_bold() {
        let levels = [Level::Good, Level::Fair, Level::Bad];
        for theme in [Theme::new(true, false), Theme::new(false, true)] {
            let [good, fair, bad] = levels.map(|level| (theme.level(level), theme.mark(level)));
            assert!(good != fair && fair != bad && good.1 != fair.1 && fair.1 != bad.1);
        }
        let fair = Theme::new(false, true).level(Level::Fair);
        assert_eq!(fair, Style::new().fg(Color::Yellow));
        assert_eq!(Theme::new(true, false).level(Level::Good).fg, None);
    }
}
