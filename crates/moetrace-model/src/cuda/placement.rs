//! Where weights and hidden states wait for their turn.

use crate::ModelConfig;

/// Where weights live between passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// In device memory: always there.
    Device,
    /// In page-locked host memory, copied to the device in every pass.
    Host,
    /// In the checkpoint's files, read in every pass.
    Disk,
}

/// How a model and its passes are laid out over a GPU's memory and the host's. It decides speed and memory, and no bit of
/// what is computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Of each decoder layer's weights.
    pub layers: Vec<Place>,
    /// Of the token embedding, [`Place::Device`] or [`Place::Host`]; rows are then fetched from there. On the device in
    /// any case where it is the language-model head too and losses are wanted.
    pub embedding: Place,
    /// Most tokens of a pass: all of them go through a layer before the next layer's weights come.
    pub tokens_per_pass: usize,
    /// Most tokens that a layer computes at once, at least those of the longest text: buffers are made for so many.
    pub tokens_per_chunk: usize,
    /// Most tokens of a text, which is never cut: passes that are made smaller when memory runs out hold as many.
    pub longest_text: usize,
    /// Whether hidden states of a pass wait in page-locked host memory between layers.
    pub parks_hidden: bool,
    /// Groups that the experts of a layer are cut into. With more than one, groups are what streamed layers bring one by
    /// one, and a pass is one chunk.
    pub expert_groups: usize,
}

impl Placement {
    /// All on the device, passes in one piece.
    pub fn resident(config: &ModelConfig, tokens_per_pass: usize) -> Self {
        Self {
            layers: vec![Place::Device; config.layers()],
            embedding: Place::Device,
            tokens_per_pass,
            tokens_per_chunk: tokens_per_pass,
            longest_text: tokens_per_pass.min(512),
            parks_hidden: false,
            expert_groups: 1,
        }
    }

    /// Whether no weights move in a pass.
    pub fn is_resident(&self) -> bool {
        self.layers.iter().all(|place| *place == Place::Device)
    }
}
