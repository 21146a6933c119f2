//! What the Hub answers where nothing goes wrong.

use serde_json::{Value, json};

use crate::repo::{Kind, Repo, git_hash, is_large, sha256};
use crate::request::{Seen, decoded};
use crate::{State, locked};

/// An answer before faults: status, header lines, body, and whether parts of it may be asked for.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<String>,
    pub(crate) body: Vec<u8>,
    pub(crate) etag: Option<String>,
}

impl Answer {
    fn json(value: &Value) -> Self {
        let headers = vec!["Content-Type: application/json".to_owned()];
        Self { status: 200, headers, body: value.to_string().into_bytes(), etag: None }
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        let mut headers = vec![format!("X-Error-Message: {message}")];
        if !code.is_empty() {
            headers.push(format!("X-Error-Code: {code}"));
        }
        let body = json!({ "error": message }).to_string().into_bytes();
        Self { status, headers, body, etag: None }
    }
}

/// The answer to a request.
pub(crate) fn answer(state: &State, request: &Seen) -> Answer {
    let path: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    match path.as_slice() {
        ["cdn", hash] => large(state, hash),
        ["api", "whoami-v2"] => whoami(request),
        ["api", kind @ ("models" | "datasets")] => search(state, kind_of(kind), request),
        ["api", kind @ ("models" | "datasets"), owner, name, what @ ("revision" | "tree"), revision] => {
            let id = format!("{owner}/{name}");
            with_repo(state, kind_of(kind), &id, |repo| match *what {
                "revision" => about(repo, &decoded(revision)),
                _ => tree(state, repo, &decoded(revision), request),
            })
        }
        ["datasets", owner, name, "resolve", revision, file @ ..] => {
            resolve(state, request, Kind::Dataset, (owner, name), revision, file)
        }
        [owner, name, "resolve", revision, file @ ..] => {
            resolve(state, request, Kind::Model, (owner, name), revision, file)
        }
        _ => Answer::error(404, "", "Not Found"),
    }
}

fn kind_of(plural: &str) -> Kind {
    if plural == "models" { Kind::Model } else { Kind::Dataset }
}

fn plural(kind: Kind) -> &'static str {
    if kind == Kind::Model { "models" } else { "datasets" }
}

fn with_repo(state: &State, kind: Kind, id: &str, answer: impl Fn(&Repo) -> Answer) -> Answer {
    let repos = locked(&state.repos);
    match repos.iter().find(|repo| (repo.kind, repo.id.as_str()) == (kind, id)) {
        Some(repo) => answer(repo),
        // As the Hub does for who has not logged in: it might be private.
        None => Answer::error(401, "RepoNotFound", "Repository not found"),
    }
}

fn whoami(request: &Seen) -> Answer {
    match request.token() {
        Some(token) if token.starts_with("hf_") => {
            Answer::json(&json!({ "type": "user", "name": "somebody" }))
        }
        _ => Answer::error(401, "", "Invalid credentials in Authorization header"),
    }
}

fn search(state: &State, kind: Kind, request: &Seen) -> Answer {
    let wanted = decoded(request.query("search").unwrap_or_default()).to_lowercase();
    // The Hub's search forgives; the first four letters are enough here.
    let start: String = wanted.chars().take(4).collect();
    let repos = locked(&state.repos);
    let found = repos.iter().filter(|repo| repo.kind == kind && repo.id.to_lowercase().contains(&start));
    Answer::json(&found.map(|repo| json!({ "id": repo.id })).collect())
}

fn about(repo: &Repo, revision: &str) -> Answer {
    let Some((commit, files)) = repo.find(revision) else {
        return Answer::error(404, "RevisionNotFound", "Invalid rev id");
    };
    let siblings: Vec<Value> = files.keys().map(|path| json!({ "rfilename": path })).collect();
    Answer::json(&json!({
        "id": repo.id, "sha": commit, "private": false, "disabled": false, "downloads": 0, "likes": 0, "tags": [],
        "gated": repo.gated_for.is_some(), "siblings": siblings, "cardData": { "license": repo.licence },
    }))
}

fn tree(state: &State, repo: &Repo, revision: &str, request: &Seen) -> Answer {
    let Some((commit, files)) = repo.find(revision) else {
        return Answer::error(404, "RevisionNotFound", "Invalid rev id");
    };
    let from: usize = request.query("cursor").and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
    let entries = files.iter().skip(from).take(repo.page).map(|(path, bytes)| {
        let mut entry = json!({ "type": "file", "path": path, "size": bytes.len(), "oid": git_hash(bytes) });
        if is_large(path) {
            entry["lfs"] = json!({ "oid": sha256(bytes), "size": bytes.len(), "pointerSize": 134 });
        }
        entry
    });
    let mut answer = Answer::json(&entries.collect());
    if from + repo.page < files.len() {
        let (kind, id, next) = (plural(repo.kind), &repo.id, from + repo.page);
        let url = format!("{}/api/{kind}/{id}/tree/{commit}?recursive=true&cursor={next}", state.endpoint);
        answer.headers.push(format!("Link: <{url}>; rel=\"next\""));
    }
    answer
}

fn resolve(
    state: &State,
    request: &Seen,
    kind: Kind,
    (owner, name): (&str, &str),
    revision: &str,
    file: &[&str],
) -> Answer {
    with_repo(state, kind, &format!("{owner}/{name}"), |repo| {
        if repo.gated_for.as_deref().is_some_and(|token| request.token() != Some(token)) {
            let status = if request.token().is_some() { 403 } else { 401 };
            return Answer::error(status, "GatedRepo", "Access to this repository is restricted");
        }
        let Some((commit, files)) = repo.find(&decoded(revision)) else {
            return Answer::error(404, "RevisionNotFound", "Invalid rev id");
        };
        let path = decoded(&file.join("/"));
        let Some(bytes) = files.get(&path) else {
            return Answer::error(404, "EntryNotFound", "Entry not found");
        };
        let mut headers = vec![format!("X-Repo-Commit: {commit}")];
        if is_large(&path) {
            let hash = sha256(bytes);
            headers.push(format!("X-Linked-Etag: \"{hash}\""));
            headers.push(format!("X-Linked-Size: {}", bytes.len()));
            headers.push(format!("Location: {}/cdn/{hash}?X-Signature=CANARY", state.cdn));
            return Answer { status: 302, headers, body: Vec::new(), etag: None };
        }
        Answer { status: 200, headers, body: bytes.clone(), etag: Some(format!("\"{}\"", git_hash(bytes))) }
    })
}

/// A large file by its hash. The `ETag` of the host that has it is not the Hub's.
fn large(state: &State, hash: &str) -> Answer {
    let repos = locked(&state.repos);
    let mut files = repos.iter().flat_map(|repo| repo.branches.values().flatten());
    match files.find(|(path, bytes)| is_large(path) && sha256(bytes) == hash) {
        Some((_, bytes)) => {
            let etag = Some(format!("\"cdn-{}\"", &hash[..16]));
            Answer { status: 200, headers: Vec::new(), body: bytes.clone(), etag }
        }
        None => Answer::error(404, "", "Not Found"),
    }
}
