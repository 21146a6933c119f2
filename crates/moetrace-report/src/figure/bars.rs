//! Bars over a few named classes.

use maud::html;

use super::{Figure, Frame, number};
use crate::scale::Scale;
use crate::text::significant;

/// A chart of bars.
#[derive(Debug, Clone)]
pub(crate) struct Bars {
    pub(crate) name: String,
    pub(crate) label: String,
    pub(crate) x_title: String,
    pub(crate) y_title: String,
    /// Name and height of each bar.
    pub(crate) heights: Vec<(String, f64)>,
}

const WIDTH: f64 = 760.0;

impl Bars {
    pub(crate) fn draw(&self) -> Figure {
        let frame = Frame { left: 64.0, top: 34.0, width: WIDTH - 84.0, height: 200.0 };
        let y = Scale::from_zero(self.heights.iter().map(|b| b.1));
        let pitch = frame.width / self.heights.len().max(1) as f64;
        let middle = |i: usize| frame.left + pitch * (i as f64 + 0.5);
        let every = (34.0 / pitch).ceil().max(1.0) as usize;
        let named = self.heights.iter().enumerate().step_by(every);
        let ticks: Vec<(f64, String)> = named.map(|(i, (name, _))| (middle(i), name.clone())).collect();
        let width = (pitch * 0.72).min(48.0);
        let body = html! {
            (frame.vertical(y, ""))
            text class="axis" x="8" y="20" { (self.y_title) }
            (frame.horizontal(&ticks, &self.x_title))
            @for (i, (name, value)) in self.heights.iter().enumerate() {
                @let top = frame.y(y, *value);
                rect class="bar" x=(number(middle(i) - width / 2.0)) y=(number(top)) width=(number(width))
                    height=(number(frame.bottom() - top)) {}
                rect class="hit" x=(number(middle(i) - pitch / 2.0)) y=(number(frame.top)) width=(number(pitch))
                    height=(number(frame.height)) data-t={ (self.x_title) " " (name) "\n" (self.y_title) ": "
                    (significant(*value)) } {}
            }
        };
        let height = frame.bottom() + 50.0;
        Figure { name: self.name.clone(), label: self.label.clone(), width: WIDTH, height, body }
    }
}
