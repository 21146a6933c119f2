//! The longest stretch of rows that are alike, and whether it is no accident.

use std::collections::HashSet;

/// Different tokens that a stretch must hold: half of the 64 rows of [`MIN_ROWS`](super::constants::MIN_ROWS), since
/// texts repeat words. Equal tokens may well be routed alike, and in a text of nothing else all are.
const MIN_TOKENS: f64 = 32.0;

/// Logarithm of the odds, 1 to 10^9, against a stretch by chance.
const LN_ODDS: f64 = 20.7;

/// How much more likely, as a power, a row is like the one before it where the text is of one kind (a table of numbers,
/// another script) than over the whole file.
const BURST: f64 = 4.0;

/// The longest stretch of one likeness, and how often rows are like that at all.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    open: Span,
    /// The different tokens of the open one.
    tokens: HashSet<u64>,
    longest: Span,
    alike: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    /// Its first row.
    pub(super) row: u64,
    /// Its rows.
    pub(super) rows: u64,
    /// Rows of another token than the row before.
    changes: u64,
    /// Different tokens.
    tokens: u64,
}

impl Stretch {
    pub(super) fn longest(&self) -> Span {
        self.longest
    }

    /// Sees a row: whether it is alike, what tells it from others, if anything, and whether it is of another token than
    /// the row before.
    pub(super) fn see(&mut self, is_alike: bool, row: u64, token: Option<u64>, is_other: bool) {
        if !is_alike {
            if self.open.rows > 0 {
                self.open = Span::default();
                self.tokens.clear();
            }
            return;
        }
        if self.open.rows == 0 {
            self.open.row = row;
        }
        self.tokens.extend(token);
        self.alike += u64::from(is_other);
        self.open.rows += 1;
        self.open.changes += u64::from(is_other);
        self.open.tokens = self.tokens.len() as u64;
        if self.open.tokens >= self.longest.tokens {
            self.longest = self.open;
        }
    }

    /// Whether so many different tokens on end are not to be expected, with `changes` rows of another token than the
    /// row before in the file. With a share p of the other rows alike, n on end come about in one of N rows with a
    /// chance of N p^n; that is to be below 10^-9, and below it still where p is its fourth root.
    pub(super) fn is_no_accident(&self, changes: u64) -> bool {
        let others = changes.saturating_sub(self.longest.changes) as f64;
        let alike = self.alike.saturating_sub(self.longest.changes) as f64;
        // One of each is added: of nothing seen, nothing is certain.
        let share = (alike + 1.0) / (others + 2.0);
        let least = BURST * ((changes.max(1) as f64).ln() + LN_ODDS) / -share.ln();
        self.longest.tokens as f64 >= least.max(MIN_TOKENS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_rows_are_often_alike_a_stretch_must_be_longer() {
        let stretch = |longest: u64, alike: u64, changes: u64| {
            let span = Span { row: 0, rows: longest, changes: longest, tokens: longest };
            let stretch = Stretch { longest: span, alike: alike + longest, ..Stretch::default() };
            stretch.is_no_accident(changes + longest)
        };
        assert!(stretch(32, 0, 10_000) && !stretch(31, 0, 10_000));
        // 4 (ln 10,100 + 20.7) / -ln 0.1 = 52, and / -ln 0.9 = 1,136.
        assert!(stretch(100, 1_000, 10_000) && !stretch(50, 1_000, 10_000));
        assert!(stretch(1_500, 9_000, 10_000) && !stretch(1_000, 9_000, 10_000));
        // Of a router that always chooses alike, nothing can be told.
        assert!(!stretch(1_000_000, 10_000, 10_000));
    }
}
