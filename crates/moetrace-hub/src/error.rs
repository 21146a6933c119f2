//! Why something of the Hub is not there. No variant holds a token, a password or the query of an address.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::DISK_RESERVE;
use crate::{RepoAddress, RepoKind};

/// What was asked for, and who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The repository at its revision.
    pub address: RepoAddress,
    /// Its page, where terms are accepted.
    pub page: String,
    /// Where the token came from that was sent, if one was.
    pub token: Option<String>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.address.kind {
            RepoKind::Model => "model",
            RepoKind::Dataset => "data set",
        };
        write!(f, "{kind} {}", self.address)
    }
}

impl Subject {
    /// `; token: not set`, or where it came from.
    fn token(&self) -> String {
        match &self.token {
            None => "token: not set".to_owned(),
            Some(source) => format!("token: set by {source} (not shown)"),
        }
    }
}

/// What the Hub, the way there, or the cache folder refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum HubError {
    #[error("{id:?} is no name on the Hub: {why}")]
    Id { id: String, why: &'static str },
    #[error(
        "{revision:?} is no revision, expected a branch, a tag, refs/... or a commit of letters, digits, '.', '_', '/', '+' and '-'"
    )]
    Revision { revision: String },
    #[error("{address:?} is no data set on the Hub: {why}")]
    DatasetAddress { address: String, why: &'static str },
    #[error("the token from {source_name} is empty or holds characters that no token has")]
    Token { source_name: String },
    #[error("{what} is {found:?}, expected {expected}")]
    Setting { what: &'static str, found: String, expected: &'static str },
    #[error("cannot reach {host}{}: {why}", proxy.as_ref().map(|p| format!(" through the proxy {p}")).unwrap_or_default())]
    Unreachable { host: String, why: String, proxy: Option<String>, cached: bool },
    #[error("{host} answers {status}{}", retry_after.map(|s| format!(", and asks to wait {s} s")).unwrap_or_default())]
    Busy { host: String, status: u16, retry_after: Option<u64> },
    #[error("the Hub does not know the token from {source_name} (401)")]
    BadToken { source_name: String },
    #[error("{subject} is gated: its terms have to be accepted first ({status}; {})", subject.token())]
    Gated { subject: Arc<Subject>, status: u16 },
    #[error("the Hub answered {status} for {subject}: {said} ({})", subject.token())]
    Forbidden { subject: Arc<Subject>, status: u16, said: String },
    #[error("there is no {subject}, or it is private ({status}; {}){}", subject.token(), or_similar(similar))]
    NoRepo { subject: Arc<Subject>, status: u16, similar: Vec<String> },
    #[error("{} has no revision {:?}", subject.address.id, subject.address.revision.as_str())]
    NoRevision { subject: Arc<Subject> },
    #[error("{subject} has no file {file}")]
    NoFile { subject: Arc<Subject>, file: String },
    #[error("{url} answered {status}: {said}")]
    Status { url: String, status: u16, said: String },
    #[error("{url}: {why}; this is no answer of the Hub")]
    Answer { url: String, why: String },
    #[error("{url} leads {why}")]
    Redirect { url: String, why: String },
    #[error("{file}: expected {expected} bytes, the answer has {got}{}", quoted(said))]
    Length { file: String, expected: u64, got: u64, said: String },
    #[error("{file}: the server does not send the part from byte {from} on alone")]
    NoRange { file: String, from: u64 },
    #[error("{file}: expected {expected}, got {got}")]
    Hash { file: String, expected: String, got: String },
    #[error("{file}: broke off after {have} of {bytes} bytes: {why}")]
    Interrupted { file: String, have: u64, bytes: u64, why: String },
    #[error("{subject} lists a file named {name:?}, which could leave its folder; nothing of it is used")]
    UnsafeName { subject: Arc<Subject>, name: String },
    #[error("{subject} has its weights in {} only, which is a pickle; pickle can run code and is never loaded", files.join(", "))]
    Pickle { subject: Arc<Subject>, files: Vec<String> },
    #[error("{subject}: {why}")]
    NoWeights { subject: Arc<Subject>, why: String },
    #[error("{subject} has no Parquet files, also not on the branch {}", crate::Revision::parquet())]
    NoParquet { subject: Arc<Subject> },
    #[error("{subject} has no configuration {asked:?}; it has {}", some_of(has))]
    NoConfig { subject: Arc<Subject>, asked: String, has: Vec<String> },
    #[error("{subject} has several configurations: {}", some_of(has))]
    WhichConfig { subject: Arc<Subject>, has: Vec<String> },
    #[error("{subject}, configuration {config}, has no split {asked:?}; it has {}", some_of(has))]
    NoSplit { subject: Arc<Subject>, config: String, asked: String, has: Vec<String> },
    #[error("{subject} has {has} of the {of} files of {config}/{split}")]
    Incomplete { subject: Arc<Subject>, config: String, split: String, has: usize, of: usize },
    #[error("{subject} has the files of {config}/{split} more than once: {} and {}", files[0], files[1])]
    Twice { subject: Arc<Subject>, config: String, split: String, files: [String; 2] },
    #[error("no space in {}: {need} bytes are to be downloaded and {} left, {free} are free", path.display(), DISK_RESERVE)]
    Disk { path: PathBuf, need: u64, free: u64 },
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is a link that leads out of the cache", path.display())]
    Linked { path: PathBuf },
    #[error("{} is in the cache with other bytes than its hash says, {hash}", path.display())]
    Spoilt { path: PathBuf, hash: String },
    #[error("offline, and {what} of {subject} is not in {}", cache.display())]
    Offline { subject: Arc<Subject>, what: String, cache: PathBuf },
}

impl HubError {
    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

fn or_similar(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("; similar names: {}", names.join(", ")) }
}

/// Names that a message lists; some data sets have thousands.
const NAMED: usize = 12;

fn some_of(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let some = names[..names.len() - more].join(", ");
    if more == 0 { some } else { format!("{some} and {more} more") }
}

/// The beginning of a body that was not the file.
fn quoted(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(" ({said:?})") }
}
