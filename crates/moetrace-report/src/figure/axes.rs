//! The frame of a chart: axes, grid lines, labels.

use maud::{Markup, html};

use super::number;
use crate::scale::Scale;
use crate::text::{significant, thousands};

/// The plotting area within a drawing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

impl Frame {
    pub(crate) fn x(&self, scale: Scale, value: f64) -> f64 {
        self.left + scale.at(value) * self.width
    }

    pub(crate) fn y(&self, scale: Scale, value: f64) -> f64 {
        self.top + (1.0 - scale.at(value)) * self.height
    }

    pub(crate) fn right(&self) -> f64 {
        self.left + self.width
    }

    pub(crate) fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// Grid lines and labels of the vertical axis.
    pub(crate) fn vertical(&self, scale: Scale, title: &str) -> Markup {
        html! {
            @for tick in scale.ticks() {
                @let y = number(self.y(scale, tick));
                line class="grid" x1=(number(self.left)) x2=(number(self.right())) y1=(y) y2=(y) {}
                text class="tick end" x=(number(self.left - 8.0)) y=(number(self.y(scale, tick) + 4.0)) {
                    (tick_label(tick))
                }
            }
            text class="axis" x=(number(self.left - 8.0)) y=(number(self.top - 12.0)) text-anchor="end" { (title) }
        }
    }

    /// The horizontal axis with labels at given places.
    pub(crate) fn horizontal(&self, ticks: &[(f64, String)], title: &str) -> Markup {
        let y = self.bottom();
        html! {
            line class="rule" x1=(number(self.left)) x2=(number(self.right())) y1=(number(y)) y2=(number(y)) {}
            @for (x, label) in ticks {
                line class="rule" x1=(number(*x)) x2=(number(*x)) y1=(number(y)) y2=(number(y + 4.0)) {}
                text class="tick middle" x=(number(*x)) y=(number(y + 18.0)) { (label) }
            }
            text class="axis middle" x=(number(self.left + self.width / 2.0)) y=(number(y + 38.0)) { (title) }
        }
    }
}

/// The number at a tick: no more decimals than it has.
pub(crate) fn tick_label(value: f64) -> String {
    let size = value.abs();
    if size >= 1e6 && (value / 1e5).fract() == 0.0 {
        return format!("{} M", number(value / 1e6));
    }
    if size >= 1000.0 {
        return thousands(value.round() as u64);
    }
    if size > 0.0 && size < 0.001 {
        return significant(value);
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
