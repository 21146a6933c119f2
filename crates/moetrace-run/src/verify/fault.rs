//! What can be wrong with a run, and where it was first seen.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal,)*) => {
        /// A kind of fault. Names are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum FaultKind {
            $($(#[$doc])* $kind,)*
        }

        impl FaultKind {
            /// Every kind, in the order in which they are reported.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Its name in messages and in JSON.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// A commit record that cannot be read, or is not as the manifest has it.
    Record "record",
    /// A file that a commit record names is not there.
    Missing "missing-file",
    /// A file's size is not the committed one.
    Size "size",
    /// A file's BLAKE3 is not the committed one.
    Hash "hash",
    /// A file that cannot be decoded, from the named row on.
    Unreadable "unreadable",
    /// A file among the run's that belongs to none of its shards.
    Stray "stray-file",
    /// What a file says about itself is not as the manifest has it.
    Metadata "metadata",
    /// A layer of the manifest without its columns.
    MissingLayer "missing-layer",
    /// Another column that is missing, of another type, or there although it is not recorded.
    Column "column",
    /// An empty cell where none may be.
    EmptyCell "empty-cell",
    /// A table with more or fewer rows than it should have.
    RowCount "row-count",
    /// Texts that are not those of the manifest: their number, their tokens, how many were cut.
    Samples "samples",
    /// A text that is listed twice.
    RepeatedSample "repeated-sample",
    /// A text whose stored hash is not its own.
    TextHash "text-hash",
    /// A row of another text than the samples table lists for it.
    SampleOrder "sample-order",
    /// A position that does not follow the one before it: a row is missing or there twice.
    Position "position",
    /// Token ids that are not those which went through the model.
    Tokens "tokens",
    /// A token id that the table of token strings has not, or that table out of order.
    Vocabulary "vocabulary",
    /// An expert id of E or above.
    ExpertRange "expert-range",
    /// An expert that is chosen twice by one token.
    ExpertTwice "expert-twice",
    /// A weight that is no number of at least 0.
    Weight "weight",
    /// A weight above that of the rank before it.
    WeightOrder "weight-order",
    /// Weights that are all 0.
    ZeroWeights "zero-weights",
    /// Weights that do not sum up to what the model's rule demands.
    WeightSum "weight-sum",
    /// A weight with more bits of mantissa than the file says.
    Rounding "rounding",
    /// A margin that is no number from 0 to 1.
    Margin "margin",
    /// A gate entropy that is no number from 0 to log2 E.
    GateEntropy "gate-entropy",
    /// A router logit that is no number, or choices and entropies that are not those of the logits.
    Logits "logits",
    /// A gate of the shared expert that is no number from 0 to 1.
    SharedGate "shared-gate",
    /// A loss that is no number of at least 0, is missing behind the first token, or is there at it.
    Loss "loss",
    /// A router input that is no number, all 0, the same for all tokens, or of another token or layer than is due.
    Hidden "hidden",
    /// A layer in which every token chose the same experts in the same order.
    ConstantExperts "constant-experts",
    /// A layer in which every token has the same weights.
    ConstantWeights "constant-weights",
    /// A layer in which every margin is 0.
    ZeroMargins "zero-margins",
    /// A layer in which every gate entropy is 0.
    ZeroEntropy "zero-entropy",
    /// A layer whose choices are those of the layer before it at every token.
    RepeatedLayer "repeated-layer",
    /// A file in which every token has the same id.
    ConstantTokens "constant-tokens",
    /// A summary that is not of these shards.
    Summary "summary",
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for FaultKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Where a fault is, as far as it has a place.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Place {
    /// The file, below the run folder.
    pub file: PathBuf,
    /// Its row, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    /// The data set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// The text that the samples table lists for the row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<u32>,
    /// The position that the row should have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// The model's own number of the layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<u16>,
}

impl Place {
    /// A file as a whole.
    pub(super) fn file(path: impl Into<PathBuf>) -> Self {
        Self { file: path.into(), ..Self::default() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(row) = self.row {
            write!(f, ", row {row}")?;
        }
        let sample = self.sample.map(|id| format!("sample {id}"));
        let position = self.position.map(|position| format!("position {position}"));
        let layer = self.layer.map(|layer| format!("layer {layer}"));
        let parts: Vec<String> =
            [self.dataset.clone(), sample, position, layer].into_iter().flatten().collect();
        if parts.is_empty() { Ok(()) } else { write!(f, " ({})", parts.join(", ")) }
    }
}

/// All faults of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The kind.
    pub kind: FaultKind,
    /// How many there are: rows of a layer, cells, texts, files, whichever the kind is about.
    pub count: u64,
    /// Where the first one is: shards in the order of the manifest, then rows, then layers.
    pub first: Place,
    /// What is wrong there, with the value and the expectation.
    pub what: String,
}

/// Faults as they are found.
#[derive(Debug, Default)]
pub(super) struct Faults {
    kinds: BTreeMap<FaultKind, Fault>,
}

impl Faults {
    /// Counts one fault; `describe` is asked only for the first of its kind.
    pub(super) fn add(&mut self, kind: FaultKind, describe: impl FnOnce() -> (Place, String)) {
        if let Some(fault) = self.kinds.get_mut(&kind) {
            fault.count += 1;
            return;
        }
        let (first, what) = describe();
        self.kinds.insert(kind, Fault { kind, count: 1, first, what });
    }

    /// Counts one fault of a whole file.
    pub(super) fn of_file(&mut self, kind: FaultKind, file: &Path, what: impl Into<String>) {
        self.add(kind, || (Place::file(file), what.into()));
    }

    /// How many faults of a kind there are.
    pub(super) fn count(&self, kind: FaultKind) -> u64 {
        self.kinds.get(&kind).map_or(0, |fault| fault.count)
    }

    /// Whether none occurred.
    pub(super) fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Each kind that occurred.
    pub(super) fn into_vec(self) -> Vec<Fault> {
        self.kinds.into_values().collect()
    }
}
