//! In: routing views, pass by pass; or the files of a recorded shard.
//! Out: Parquet files (tokens, samples, hidden states, vocabulary); or the same routing views, played back.
//! Holds: the versioned schema, [`ShardWriter`], [`ShardReader`], [`Playback`], [`TokenTable`], [`HiddenTable`], samples, vocabulary, first rows.
//! Not here: run folders, file names, hashes, commits, models, numbers about routing; no clock, no printing.
//!
//! `docs/trace-format.md` is the specification of what these files hold and promise.

mod array;
mod chunk;
mod column;
mod encoder;
mod error;
mod file;
mod hidden;
mod hidden_table;
mod layer;
mod lists;
mod metadata;
mod numbers;
mod pass;
mod playback;
mod properties;
mod reader;
mod rows;
mod samples;
mod schema;
mod settings;
mod table;
mod token_table;
mod vocabulary;
mod writer;

pub use error::TraceError;
pub use file::{read_columns, read_metadata, verify_footer};
pub use hidden_table::{HiddenStates, HiddenTable};
pub use metadata::SCHEMA_VERSION;
pub use numbers::{NumberColumn, write_numbers};
pub use pass::RecordedPass;
pub use playback::Playback;
pub use reader::ShardReader;
pub use rows::{LayerRouting, TokenRow, read_rows};
pub use samples::{SampleRow, read_samples, write_samples};
pub use schema::{MAX_GROUP_BYTES, MAX_GROUP_ROWS, MAX_POSITION, MAX_SAMPLE_TOKENS};
pub use settings::{TraceColumns, TraceSettings};
pub use token_table::{TokenRows, TokenTable};
pub use vocabulary::{read_vocabulary, write_vocabulary};
pub use writer::{ShardWriter, WrittenShard};
