//! SVG figures as PNG, with the fonts of the system.

use std::sync::Arc;

use resvg::{tiny_skia, usvg};

/// Why a figure is not there as PNG.
#[derive(Debug, thiserror::Error)]
pub enum PngError {
    /// Labels need a font.
    #[error("this system has no font to draw labels with")]
    NoFont,
    /// What an SVG file of ours should never be.
    #[error("the figure cannot be drawn: {0}")]
    Svg(#[from] usvg::Error),
    /// Too large for memory, or of no size.
    #[error("no picture of {width} by {height} pixels can be made")]
    Size {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// Encoding failed.
    #[error("the picture cannot be encoded: {0}")]
    Encode(String),
}

/// Pixels to a unit of the figure: 2 prints a figure of 760 units across a column at over 300 dots an inch.
const SCALE: f32 = 2.0;

/// Draws figures; reads the system's fonts once.
pub struct PngRenderer {
    options: usvg::Options<'static>,
}

impl PngRenderer {
    /// A renderer with the fonts that the system has.
    ///
    /// # Errors
    /// [`PngError::NoFont`] where there are none: labels would be missing.
    pub fn new() -> Result<Self, PngError> {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_system_fonts();
        let named = |name: &str| fonts.faces().any(|face| face.families.iter().any(|f| f.0 == name));
        let known = ["DejaVu Sans", "Liberation Sans", "Arial", "Helvetica", "Noto Sans"];
        let known = known.into_iter().find(|name| named(name)).map(str::to_owned);
        let any = || fonts.faces().next().and_then(|face| face.families.first()).map(|f| f.0.clone());
        let family = known.or_else(any).ok_or(PngError::NoFont)?;
        fonts.set_sans_serif_family(family);
        Ok(Self { options: usvg::Options { fontdb: Arc::new(fonts), ..usvg::Options::default() } })
    }

    /// One figure as the bytes of a PNG file, two pixels to a unit.
    ///
    /// # Errors
    /// [`PngError`] if the text is no drawing, or too large.
    pub fn render(&self, svg: &str) -> Result<Vec<u8>, PngError> {
        let tree = usvg::Tree::from_str(svg, &self.options)?;
        let size = tree.size();
        let (width, height) = ((size.width() * SCALE).ceil() as u32, (size.height() * SCALE).ceil() as u32);
        let mut pixels = tiny_skia::Pixmap::new(width, height).ok_or(PngError::Size { width, height })?;
        resvg::render(&tree, tiny_skia::Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
        pixels.encode_png().map_err(|error| PngError::Encode(error.to_string()))
    }
}
