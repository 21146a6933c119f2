//! In: names of models and data sets on the Hugging Face Hub, and a cache folder shared with its Python client.
//! Out: local folders of checked files, each of one commit; or why not, as a [`HubError`].
//! Holds: ids and revisions, the Hub's API, downloads that resume, hashes, the cache's layout, data-set presets.
//! Not here: models, Parquet, a terminal; reads no environment and no clock, prints nothing, sends no token elsewhere.

mod api;
mod cache;
mod check;
mod dataset;
mod disk;
mod download;
mod error;
mod event;
mod http;
mod hub;
mod id;
mod listing;
mod model;
mod partial;
mod presets;
mod saved;
mod settings;
mod tail;
mod url;
mod way;
mod write;

pub use api::Account;
pub use dataset::{DatasetAddress, Parquet, parquet_of};
pub use disk::{DISK_RESERVE, free_bytes};
pub use error::{HubError, Subject};
pub use event::HubEvent;
pub use hub::{Hub, Snapshot};
pub use id::{Commit, RepoAddress, RepoId, RepoKind, Revision};
pub use listing::{FileHash, RepoFile};
pub use model::{ModelFiles, model_files, weight_files};
pub use presets::{GUIDE, PRESETS, Preset};
pub use settings::{HubSettings, ProxySettings, Token};
