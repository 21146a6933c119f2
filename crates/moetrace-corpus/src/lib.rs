//! In: local data sets (jsonl, csv, Parquet, Arrow, text files, folders of these) and a model's tokenizer.
//! Out: a [`CorpusPlan`] of tokenised samples, the same for the same seed, and packed token batches.
//! Holds: format readers, filters, duplicate removal, seeded sampling, tokenizer and chat template, packing.
//! Not here: models, routing, Parquet output, downloads; prints nothing, reads no clock, no environment.

mod chat;
mod error;
mod fingerprint;
mod guard;
mod pack;
mod plan;
mod read;
mod sample;
mod settings;
mod skip;
mod source;
mod tojson;
mod tokenizer;

pub use chat::Message;
pub use error::CorpusError;
pub use pack::{pack, passes};
pub use plan::{CorpusPlan, DatasetPlan, SourceFile, files_needed, plan};
pub use read::{ParquetRows, parquet_rows};
pub use sample::Sample;
pub use settings::{CorpusEvent, CorpusSettings};
pub use skip::{SkipCounts, SkipReason, SkippedRow};
pub use source::{ListedFile, SourceSpec};
pub use tokenizer::TextTokenizer;
