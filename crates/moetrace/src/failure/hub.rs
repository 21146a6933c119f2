//! Failures on the way to the Hub, there, and in its cache.

use std::io::ErrorKind;
use std::path::Path;

use moetrace_hub::{HubError, PRESETS, Preset, RepoKind};

use super::{Failure, code, io_code, told};

/// How names are written.
const NAMES: &str =
    "write OWNER/NAME or OWNER/NAME@REVISION as its page on the Hub has it, or name a folder that is here";

const SAME: &str = "the same command goes on where it ended";

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        let (exit, name, help) = named(&error);
        Self::new(exit, name, told(&error), help)
    }
}

/// Exit code, name and next step.
fn named(error: &HubError) -> (u8, &'static str, String) {
    access(error).or_else(|| network(error)).or_else(|| contents(error)).unwrap_or_else(|| match error {
        HubError::Disk { .. } => {
            (code::IO, "E-DISK", "free space, or set HF_HUB_CACHE to a folder on a larger disk".into())
        }
        HubError::Io { source, .. }
            if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
        {
            (code::IO, "E-DISK", format!("free space, then {SAME}"))
        }
        HubError::Io { source, .. } => {
            let help = "set HF_HUB_CACHE or HF_HOME to a folder that can be written; --offline uses what the cache has";
            let exit =
                if io_code(source, false) == code::PERMISSION { code::PERMISSION } else { code::NO_OUTPUT };
            (exit, "E-CACHE", help.into())
        }
        HubError::Linked { .. } => (
            code::BAD_INPUT,
            "E-CACHE",
            "remove the link; without --offline the file is fetched again".into(),
        ),
        HubError::Spoilt { .. } => (
            code::BAD_INPUT,
            "E-CACHE",
            "without --offline the file is fetched again; or restore it".into(),
        ),
        HubError::Setting { .. } => {
            let help = "correct HF_ENDPOINT, HTTPS_PROXY, HTTP_PROXY, ALL_PROXY or SSL_CERT_FILE, or unset it";
            (code::CONFIG, "E-HUB-SETTING", help.into())
        }
        _ => (code::UNAVAILABLE, "E-HUB", "run the same command again".into()),
    })
}

/// Names and tokens.
fn access(error: &HubError) -> Option<(u8, &'static str, String)> {
    Some(match error {
        HubError::Id { .. } | HubError::Revision { .. } => (code::USAGE, "E-HUB-NAME", NAMES.into()),
        HubError::DatasetAddress { .. } => {
            let help = "write --dataset hf://datasets/OWNER/NAME[@REVISION][/CONFIG][/SPLIT][:COLUMN]";
            (code::USAGE, "E-DATASET", help.into())
        }
        HubError::NoRepo { subject, similar, .. } => {
            let help = match (similar.first(), &subject.token) {
                (Some(similar), _) => {
                    let scheme =
                        if subject.address.kind == RepoKind::Dataset { "hf://datasets/" } else { "" };
                    format!("did you mean {scheme}{similar}? Or name a folder or file that is here")
                }
                (None, None) => {
                    format!("check the name at {}; for a private one set HF_TOKEN", subject.page)
                }
                (None, Some(_)) => {
                    format!("check the name at {}, and that the token may read it", subject.page)
                }
            };
            (code::NO_INPUT, "E-NOREPO", help)
        }
        HubError::NoRevision { subject } => {
            (code::NO_INPUT, "E-NOREPO", format!("{}/tree/main lists branches and tags", subject.page))
        }
        HubError::NoFile { subject, .. } => {
            (code::NO_INPUT, "E-NOREPO", format!("{}/tree/main lists its files", subject.page))
        }
        HubError::Gated { subject, .. } => {
            let help = match subject.token {
                None => "then set HF_TOKEN, or log in with 'hf auth login'",
                Some(_) => "with the account of the token, then run the same command again",
            };
            (code::PERMISSION, "E-AUTH", format!("accept the terms at {}, {help}", subject.page))
        }
        HubError::Forbidden { subject, .. } => {
            let help = format!("set HF_TOKEN to a token that may read {}", subject.page);
            (code::PERMISSION, "E-AUTH", help)
        }
        HubError::BadToken { source_name } | HubError::Token { source_name } => {
            let help = format!(
                "make a new token and set HF_TOKEN; unset or remove {source_name} for what is public"
            );
            (code::PERMISSION, "E-AUTH", help)
        }
        _ => return None,
    })
}

/// The way there and back.
fn network(error: &HubError) -> Option<(u8, &'static str, String)> {
    Some(match error {
        HubError::Unreachable { cached: true, .. } => {
            let help = "check the connection; --offline takes what the cache has of it";
            (code::UNAVAILABLE, "E-NETWORK", help.into())
        }
        HubError::Unreachable { why, .. } if why.contains("certificate") => {
            let help = "set SSL_CERT_FILE to the certificates that this network's proxy or mirror needs";
            (code::UNAVAILABLE, "E-NETWORK", help.into())
        }
        HubError::Unreachable { proxy: Some(_), .. } => {
            let help =
                "check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY; hosts that need no proxy belong into NO_PROXY";
            (code::UNAVAILABLE, "E-NETWORK", help.into())
        }
        HubError::Unreachable { .. } => {
            let help = "check the connection; behind a proxy set HTTPS_PROXY, for a mirror HF_ENDPOINT";
            (code::UNAVAILABLE, "E-NETWORK", help.into())
        }
        HubError::Busy { status, .. } => {
            let limit = if *status == 429 { "; a token raises the limit" } else { "" };
            (code::LATER, "E-HUB-BUSY", format!("wait, then run the same command again{limit}"))
        }
        HubError::Interrupted { .. } => (code::LATER, "E-INTERRUPTED", SAME.into()),
        HubError::Length { .. } | HubError::Hash { .. } => {
            let help = "nothing of it was kept; if it happens again, something between here and the Hub changes files";
            (code::UNAVAILABLE, "E-HUB-BODY", help.into())
        }
        HubError::NoRange { .. } => {
            let help = "--file-budget larger than the data set has all of it fetched, without a look at the end of each file";
            (code::UNAVAILABLE, "E-HUB-BODY", help.into())
        }
        HubError::Answer { .. } | HubError::Redirect { .. } => {
            let help = "open the address in a browser: a login page of a network, or a wrong HF_ENDPOINT, would show";
            (code::UNAVAILABLE, "E-HUB", help.into())
        }
        HubError::Offline { .. } => {
            let help =
                "run the same command once without --offline and HF_HUB_OFFLINE, or name a local folder";
            (code::UNAVAILABLE, "E-OFFLINE", help.into())
        }
        _ => return None,
    })
}

/// What a repository holds.
fn contents(error: &HubError) -> Option<(u8, &'static str, String)> {
    Some(match error {
        HubError::UnsafeName { .. } => {
            (code::BAD_INPUT, "E-HUB-NAME", "use another repository, and report this one".into())
        }
        HubError::Pickle { .. } => (code::BAD_INPUT, "E-PICKLE", "use a revision with *.safetensors".into()),
        HubError::NoWeights { .. } => {
            (code::BAD_INPUT, "E-MODEL", "docs/models.md says which files make a checkpoint".into())
        }
        HubError::NoParquet { .. } => {
            let help = "download its files and name them: --dataset NAME=PATH; loading scripts are never run";
            (code::BAD_INPUT, "E-DATA", help.into())
        }
        HubError::Incomplete { .. } => (
            code::BAD_INPUT,
            "E-DATA",
            "without --offline the list is fetched anew; else name another revision".into(),
        ),
        HubError::Twice { .. } => {
            let help = "an upload was made over an older one: name a revision with one of them, or @~parquet, the Hub's own conversion";
            (code::BAD_INPUT, "E-DATA", help.into())
        }
        HubError::NoConfig { subject, has, .. } | HubError::WhichConfig { subject, has } => {
            let config = has.first().map_or("CONFIG", String::as_str);
            let help = format!("write --dataset hf://datasets/{}/{}", subject.address.id, part(config));
            (code::USAGE, "E-DATASET", help)
        }
        HubError::NoSplit { subject, config, has, .. } => {
            let split = has.first().map_or("SPLIT", String::as_str);
            let (config, split) = (part(config), part(split));
            let help = format!("write --dataset hf://datasets/{}/{config}/{split}", subject.address.id);
            (code::USAGE, "E-DATASET", help)
        }
        _ => return None,
    })
}

/// A configuration or split as an address has it.
fn part(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

/// What else `--dataset` might be, where there is no such file.
pub(super) fn other_texts(missing: &Path) -> String {
    let given = missing.to_str().unwrap_or_default();
    let meant = match (Preset::named(given), near_preset(given)) {
        // A preset has its column: with another one behind it it is taken for a file.
        (Some(Preset { owner, repo, config, .. }), _) => {
            format!("write hf://datasets/{owner}/{repo}/{config}:COLUMN for another column of {given}, or ")
        }
        (None, Some(near)) => format!("did you mean {near}? Or "),
        (None, None) => String::new(),
    };
    let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
    format!(
        "{meant}name an existing file or folder (--dataset NAME=PATH), or a data set of the Hub: {}, or any as \
         hf://datasets/OWNER/NAME",
        names.join(", ")
    )
}

/// How alike two names are that are taken for one mistyped, of 1 (Jaro): clap has 0.7 for flags, which are longer.
const ALIKE: f64 = 0.8;

/// The name that `--dataset` knows and that this is most like, if it is like one. What is written as a path is meant as one.
fn near_preset(given: &str) -> Option<&'static str> {
    if given.contains(['/', '\\', '.']) {
        return None;
    }
    let names = PRESETS.iter().map(|preset| preset.name).chain(["guide"]);
    let likeness = |name: &'static str| (strsim::jaro(&given.to_lowercase(), name), name);
    let (best, name) = names.map(likeness).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best > ALIKE).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_preset_is_guessed_and_a_path_is_none() {
        for (given, near) in [
            ("imbd", Some("imdb")),
            ("IMDB", Some("imdb")),
            ("agnews", Some("ag_news")),
            ("dbpedia", Some("dbpedia_14")),
            ("yelp_reviews_full", Some("yelp_review_full")),
            ("squad2", Some("squad")),
            ("giude", Some("guide")),
            ("wikitext", Some("wikitext-2-raw-v1")),
            ("texts", None),
            ("my_reviews", None),
            ("./imbd", None),
            ("imdb.csv", None),
            ("", None),
        ] {
            assert_eq!(near_preset(given), near, "{given}");
        }
    }
}
