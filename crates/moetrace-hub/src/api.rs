//! What the Hub says of a repository: its commit, its files, its licences; and who asks.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use ureq::http::{HeaderMap, StatusCode};

use crate::http::{Http, beginning, header};
use crate::id::is_lower_hex;
use crate::listing::is_safe;
use crate::url::{encoded, joined, shown};
use crate::{Commit, FileHash, HubError, RepoAddress, RepoFile, Subject};

/// Pages of a listing, of 1,000 files each. A repository with more files is none of ours.
const PAGES: usize = 200;

/// Names suggested where there is no such repository.
const SUGGESTED: usize = 3;

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Account {
    /// The user or organisation.
    pub name: String,
}

/// A revision, resolved.
pub(crate) struct Info {
    pub(crate) commit: Commit,
    pub(crate) licences: Vec<String>,
}

/// The commit of a revision, and the licences that the repository's card names.
pub(crate) fn info(http: &Http, subject: &Arc<Subject>) -> Result<Info, HubError> {
    let address = &subject.address;
    let revision = encoded(address.revision.as_str(), false);
    let url = http.url(&format!("api/{}/{}/revision/{revision}", address.kind.plural(), address.id));
    let answer: Value = json(http, &url, subject)?;
    let commit = answer.get("sha").and_then(Value::as_str).and_then(Commit::parse);
    let why = "expected \"sha\" with a commit of 40 digits".to_owned();
    let commit = commit.ok_or(HubError::Answer { url: shown(&url), why })?;
    let asked = address.revision.commit();
    if let Some(asked) = asked.filter(|asked| *asked != commit) {
        return Err(HubError::Answer { url: shown(&url), why: format!("commit {commit}, expected {asked}") });
    }
    Ok(Info { commit, licences: licences(&answer) })
}

/// `license` of the card, a word or a list of them; what is no word is left out.
fn licences(answer: &Value) -> Vec<String> {
    let is_word = |text: &&str| {
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
        (1..=64).contains(&text.len()) && text.bytes().all(is_allowed)
    };
    let words: Vec<&str> = match answer.pointer("/cardData/license") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    words.into_iter().filter(is_word).map(str::to_owned).collect()
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    oid: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// Every file of a commit, in name order.
pub(crate) fn tree(http: &Http, subject: &Arc<Subject>, commit: &Commit) -> Result<Vec<RepoFile>, HubError> {
    let address = &subject.address;
    let mut url = http.url(&format!(
        "api/{}/{}/tree/{commit}?recursive=true&expand=false",
        address.kind.plural(),
        address.id
    ));
    let mut files = Vec::new();
    for _ in 0..PAGES {
        let (headers, entries): (HeaderMap, Vec<Entry>) = page(http, &url, subject)?;
        for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
            if !is_safe(&entry.path) {
                return Err(HubError::UnsafeName { subject: subject.clone(), name: entry.path });
            }
            files.push(listed(entry).ok_or_else(|| HubError::Answer {
                url: shown(&url),
                why: "expected a file's hash as 40 or 64 hexadecimal digits".to_owned(),
            })?);
        }
        let Some(more) = header(&headers, "link").and_then(next) else {
            files.sort_by(|a, b| a.path.cmp(&b.path));
            return Ok(files);
        };
        let refused = || HubError::Redirect { url: shown(&url), why: format!("on to {:?}", shown(more)) };
        url = joined(&url, more).ok_or_else(refused)?;
    }
    Err(HubError::Answer { url: shown(&url), why: format!("expected at most {PAGES} pages of files") })
}

fn listed(entry: Entry) -> Option<RepoFile> {
    let (hash, bytes) = match entry.lfs {
        Some(lfs) => (is_lower_hex(&lfs.oid, 64).then_some(FileHash::Sha256(lfs.oid))?, lfs.size),
        None => (is_lower_hex(&entry.oid, 40).then_some(FileHash::Git(entry.oid))?, entry.size),
    };
    Some(RepoFile { path: entry.path, bytes, hash: Some(hash) })
}

/// The address in `<…>; rel="next"`.
fn next(link: &str) -> Option<&str> {
    let part = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    part.trim().strip_prefix('<')?.split('>').next()
}

/// Whose token was sent.
pub(crate) fn whoami(http: &Http) -> Result<Account, HubError> {
    let url = http.url("api/whoami-v2");
    let (status, _, text) = http.text(&url)?;
    match (status.as_u16(), http.token_source()) {
        (401, Some(source_name)) => Err(HubError::BadToken { source_name }),
        (200..300, _) => parsed(&url, &text),
        (status, _) => Err(HubError::Status { url: shown(&url), status, said: beginning(&text) }),
    }
}

fn json<T: serde::de::DeserializeOwned>(
    http: &Http,
    url: &str,
    subject: &Arc<Subject>,
) -> Result<T, HubError> {
    Ok(page(http, url, subject)?.1)
}

fn page<T: serde::de::DeserializeOwned>(
    http: &Http,
    url: &str,
    subject: &Arc<Subject>,
) -> Result<(HeaderMap, T), HubError> {
    let (status, headers, text) = http.text(url)?;
    if !status.is_success() {
        return Err(refused(http, subject, url, (status, &headers, &text)));
    }
    Ok((headers, parsed(url, &text)?))
}

fn parsed<T: serde::de::DeserializeOwned>(url: &str, text: &str) -> Result<T, HubError> {
    serde_json::from_str(text).map_err(|error| {
        let why = format!("{error}; it begins {:?}", beginning(text));
        HubError::Answer { url: shown(url), why }
    })
}

/// What a status means, by the header that the Hub adds to it and else by its number.
pub(crate) fn refused(
    http: &Http,
    subject: &Arc<Subject>,
    url: &str,
    (code, headers, text): (StatusCode, &HeaderMap, &str),
) -> HubError {
    let (subject, status) = (subject.clone(), code.as_u16());
    let named = header(headers, "x-error-code").unwrap_or_default();
    let message = header(headers, "x-error-message").map_or_else(|| beginning(text), beginning);
    match (status, named) {
        (_, "GatedRepo") => HubError::Gated { subject, status },
        (_, "RevisionNotFound") => HubError::NoRevision { subject },
        (401, _) if message.contains("Invalid credentials") => {
            HubError::BadToken { source_name: subject.token.clone().unwrap_or_default() }
        }
        // The Hub hides from strangers whether a private repository exists.
        (401 | 404, "" | "RepoNotFound") => {
            HubError::NoRepo { similar: similar(http, &subject.address), subject, status }
        }
        (401 | 403, _) => HubError::Forbidden { subject, status, said: message },
        _ => HubError::Status { url: shown(url), status, said: message },
    }
}

/// Names that the Hub's search finds for the one that it does not know; none if that fails too.
fn similar(http: &Http, address: &RepoAddress) -> Vec<String> {
    let (kind, name) = (address.kind.plural(), encoded(address.id.name(), false));
    let url = http.url(&format!("api/{kind}?search={name}&limit={SUGGESTED}"));
    let Ok((status, _, text)) = http.text(&url) else { return Vec::new() };
    let found: Vec<Value> =
        if status.is_success() { serde_json::from_str(&text).unwrap_or_default() } else { Vec::new() };
    let ids = found.iter().filter_map(|entry| entry.get("id")?.as_str());
    ids.filter(|id| crate::RepoId::parse(id).is_ok()).take(SUGGESTED).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_a_link_header() {
        assert_eq!(
            next("<https://hub.example/a?cursor=x>; rel=\"next\""),
            Some("https://hub.example/a?cursor=x")
        );
        assert_eq!(next("<https://hub.example/a>; rel=\"prev\""), None);
    }

    #[test]
    fn licences_are_words() {
        let of = |license: Value| licences(&serde_json::json!({ "cardData": { "license": license } }));
        assert_eq!(of("apache-2.0".into()), ["apache-2.0"]);
        assert_eq!(of(serde_json::json!(["cc-by-sa-3.0", "gfdl", 3, "<script>"])), ["cc-by-sa-3.0", "gfdl"]);
        assert!(of(Value::Null).is_empty());
    }
}
