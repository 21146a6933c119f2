//! Where a model or a data set came from, if it was from a hub. None of it decides a byte: the files' hashes do.

use serde::{Deserialize, Serialize};

/// A repository on a hub at one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubFacts {
    /// `OWNER/NAME`.
    pub repo: String,
    /// The revision that was asked for.
    pub revision: String,
    /// The commit that it was.
    pub commit: String,
    /// Licences on its card; none if it names none, or was read offline.
    pub licences: Vec<String>,
    /// The files that were used.
    pub files: Vec<HubFileFacts>,
}

/// A file of a repository, as the hub listed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubFileFacts {
    /// Its path there.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// `sha256 …` or `git blob …`, against which it was checked; `None` where the cache does not tell.
    pub hash: Option<String>,
}
