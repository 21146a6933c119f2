//! What a placement may take, and what it should be like.

use crate::cuda::placement::Place;

/// Most bytes that may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// On the device, CUDA's own included.
    pub device: u64,
    /// Page-locked host memory.
    pub host: u64,
}

/// Whether layers may leave the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offload {
    /// Those that do not fit.
    #[default]
    Auto,
    /// None: what does not fit is refused.
    Never,
    /// All of them.
    Always,
}

/// What is asked of a placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// Tokens of a pass; as many as are good unless given.
    pub tokens_per_pass: Option<usize>,
    /// Tokens of the longest text, which is never cut: passes and chunks have at least so many.
    pub longest: usize,
    /// Whether layers may leave the device.
    pub offload: Offload,
    /// Places asked for, by layer; those beyond its end, and `None`, are free.
    pub layers: Vec<Option<Place>>,
    /// Place asked for of the token embedding.
    pub embedding: Option<Place>,
    /// Whether layers may be read from the checkpoint in every pass. Not where they are quantised when they are loaded.
    pub reads_disk: bool,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            tokens_per_pass: None,
            longest: 512,
            offload: Offload::Auto,
            layers: Vec::new(),
            embedding: None,
            reads_disk: true,
        }
    }
}

impl Wishes {
    /// The place asked for of a layer.
    pub(super) fn layer(&self, layer: usize) -> Option<Place> {
        match self.layers.get(layer).copied().flatten() {
            None if self.offload == Offload::Never => Some(Place::Device),
            asked => asked,
        }
    }

    /// Whether everything may be on the device.
    pub(super) fn allow_resident(&self) -> bool {
        let device = |place: &Option<Place>| place.is_none_or(|place| place == Place::Device);
        self.offload != Offload::Always && self.layers.iter().all(device) && device(&self.embedding)
    }
}
