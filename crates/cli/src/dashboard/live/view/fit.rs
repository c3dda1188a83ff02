//! Text in a given number of cells.
//!
//! Owns widths as the terminal counts them, cutting, padding, and what becomes of names that
//! others have chosen: nothing in them acts on the terminal or moves the columns after them.

use ratatui::buffer::CellWidth;
use unicode_segmentation::UnicodeSegmentation;

use crate::output::escape;

/// Most characters in one cell: a letter with what is written above and below it.
const CELL_CHARS_MAX: usize = 8;

/// What others have chosen, safe to show, in at most `width` cells.
pub(super) fn name(text: &str, width: usize, ellipsis: &str) -> String {
    cut(&escape(text), width, ellipsis)
}

/// At most `width` cells of a text; `ellipsis` is where the rest was.
pub(super) fn cut(text: &str, width: usize, ellipsis: &str) -> String {
    let ellipsis = if cells(ellipsis) < width { ellipsis } else { "" };
    let mut kept = String::new();
    let mut used = 0;
    // Length of what is kept if the rest does not fit.
    let mut fallback = 0;
    for cell in text.graphemes(true) {
        let cell_width = usize::from(cell.cell_width());
        if used + cell_width > width {
            kept.truncate(fallback);
            kept.push_str(ellipsis);
            return kept;
        }
        used += cell_width;
        kept.extend(cell.chars().take(CELL_CHARS_MAX));
        if used + cells(ellipsis) <= width {
            fallback = kept.len();
        }
    }
    kept
}

/// Cells that a text takes.
pub(super) fn cells(text: &str) -> usize {
    // One by one, as they are drawn: together some would be counted as one.
    text.graphemes(true).map(|cell| usize::from(cell.cell_width())).sum()
}

/// A text and the spaces that make it `width` cells, after it or before it.
pub(super) fn pad(text: &str, width: usize, is_right: bool) -> String {
    let spaces = " ".repeat(width.saturating_sub(cells(text)));
    if is_right { spaces + text } else { text.to_owned() + &spaces }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_by_cells_not_by_letters() {
        let wide = "\u{65e5}\u{672c}\u{8a9e}";
        let cases = [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab\u{2026}"),
            ("abcd", 1, "a"),
            ("abcd", 0, ""),
            (wide, 6, wide),
            (wide, 5, "\u{65e5}\u{672c}\u{2026}"),
            (wide, 4, "\u{65e5}\u{2026}"),
            ("e\u{301}e\u{301}", 2, "e\u{301}e\u{301}"),
        ];
        for (text, width, expected) in cases {
            let kept = cut(text, width, "\u{2026}");
            assert_eq!(kept, expected, "{text} in {width}");
            assert!(cells(&kept) <= width);
        }
        assert_eq!(cut("abcdef", 5, "..."), "ab...");
        assert_eq!(cut("abcdef", 3, "..."), "abc");
        assert_eq!([pad(wide, 7, false), pad("5", 3, true)], [format!("{wide} "), "  5".into()]);
    }

    #[test]
    fn names_lose_what_acts_on_a_terminal() {
        let kept = name("a\u{1b}[2Jb", 40, "...");
        assert_eq!(kept, "a\\u{1b}[2Jb");
        let kept = name("\u{5d0}\u{202e}\u{200d}", 40, "...");
        assert_eq!(kept, "\u{5d0}\\u{202e}\\u{200d}");
        // A letter with hundreds of marks on it stays in its cell.
        let kept = name(&("a".to_owned() + &"\u{301}".repeat(500) + "b"), 2, "...");
        assert_eq!((cells(&kept), kept.chars().count()), (2, CELL_CHARS_MAX + 1));
        assert_eq!(cells(&name(&"x\n".repeat(512), 20, "...")), 20);
    }
}
