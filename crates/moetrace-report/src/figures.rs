//! Every chart of a report as a file of its own.

use crate::input::ReportInput;
use crate::page::sections;

/// One figure, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FigureFile {
    /// Stem of the file's name: lower case, digits and hyphens.
    pub name: String,
    /// The drawing, a complete SVG file.
    pub svg: String,
}

/// All figures of a report, in the order of the page; heat maps with a choice of layers once for each layer.
pub fn figures(input: &ReportInput<'_>) -> Vec<FigureFile> {
    let sections = sections(input);
    let drawn = sections.iter().flat_map(crate::section::Section::figures);
    drawn.map(|figure| FigureFile { svg: figure.to_svg(), name: figure.name }).collect()
}
