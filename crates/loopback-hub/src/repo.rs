//! Repositories: names, branches, bytes, and the hashes that the Hub names them by.

use std::collections::BTreeMap;

use sha1::{Digest as _, Sha1};
use sha2::Sha256;

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

/// A repository with its branches.
#[derive(Debug, Clone)]
pub struct Repo {
    /// What it holds.
    pub kind: Kind,
    /// `OWNER/NAME`.
    pub id: String,
    /// Files by path, of each branch.
    pub branches: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// The token without which files are refused as gated.
    pub gated_for: Option<String>,
    /// The licence on its card.
    pub licence: Option<String>,
    /// Files on one page of a listing.
    pub page: usize,
}

impl Repo {
    /// A repository with files on `main`.
    pub fn new<'a>(kind: Kind, id: &str, files: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Self {
        let mut repo = Self {
            kind,
            id: id.to_owned(),
            branches: BTreeMap::new(),
            gated_for: None,
            licence: None,
            page: 1000,
        };
        repo.branch("main", files);
        repo
    }

    /// Adds a branch, or replaces it.
    pub fn branch<'a>(&mut self, name: &str, files: impl IntoIterator<Item = (&'a str, Vec<u8>)>) {
        let files = files.into_iter().map(|(path, bytes)| (path.to_owned(), bytes)).collect();
        self.branches.insert(name.to_owned(), files);
    }

    /// The commit of a branch: a hash of its files.
    pub fn commit(&self, branch: &str) -> Option<String> {
        let mut hasher = Sha1::new();
        for (path, bytes) in self.branches.get(branch)? {
            hasher.update(path.as_bytes());
            hasher.update(Sha256::digest(bytes));
        }
        Some(hex(&hasher.finalize()))
    }

    /// The branch that is meant by its name or by its commit.
    pub(crate) fn find(&self, revision: &str) -> Option<(String, &BTreeMap<String, Vec<u8>>)> {
        let is_it =
            |name: &str| name == revision || self.commit(name).is_some_and(|commit| commit == revision);
        let (name, files) = self.branches.iter().find(|(name, _)| is_it(name))?;
        Some((self.commit(name)?, files))
    }
}

/// Whether the Hub keeps a file of this name outside git.
pub(crate) fn is_large(path: &str) -> bool {
    [".safetensors", ".parquet", ".bin"].iter().any(|end| path.ends_with(end))
}

/// git's name of a file with these bytes.
pub fn git_hash(bytes: &[u8]) -> String {
    hex(&Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
