//! Angles of the rotary position embedding (Su et al. 2021, arXiv 2104.09864, as in `LlamaRotaryEmbedding`).

/// Frequencies of a head's pairs.
#[derive(Debug, Clone)]
pub(crate) struct Angles {
    frequencies: Vec<f32>,
}

impl Angles {
    /// `1 / theta^(2 i / width)` for the pairs of a head.
    pub(crate) fn new(head_width: usize, theta: f64) -> Self {
        let frequency = |i| 1.0 / (theta as f32).powf((2 * i) as f32 / head_width as f32);
        Self { frequencies: (0..head_width / 2).map(frequency).collect() }
    }

    /// The angles of a position. They are f32 products as in the reference: at large positions their rounding is
    /// part of the model.
    pub(crate) fn at(&self, position: u32) -> impl Iterator<Item = f32> {
        self.frequencies.iter().map(move |frequency| position as f32 * frequency)
    }
}
