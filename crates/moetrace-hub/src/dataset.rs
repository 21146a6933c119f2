//! Data sets by name: `hf://datasets/OWNER/NAME[@REVISION][/CONFIG][/SPLIT][:COLUMN]`, and which Parquet files that is.

use std::collections::{BTreeMap, BTreeSet};

use crate::{HubError, RepoAddress, RepoFile, RepoId, RepoKind, Revision, Snapshot};

const SCHEME: &str = "hf://datasets/";

/// The configuration that files in no folder of their own are of.
const DEFAULT: &str = "default";

/// A data set, and which part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetAddress {
    /// The repository.
    pub repo: RepoAddress,
    /// Its configuration; if there is one only, or one called `default`, it need not be named.
    pub config: Option<String>,
    /// Its split; `train` if it has one.
    pub split: Option<String>,
    /// The column with the text.
    pub column: Option<String>,
}

impl DatasetAddress {
    /// Whether a text means to be such an address.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with("hf://")
    }

    /// Reads an address. A revision may be `refs/convert/NAME` or `refs/pr/N`, or any other with its slashes as `%2F`; so
    /// has a configuration its own, and a percent sign in it as `%25`.
    ///
    /// # Errors
    /// [`HubError::DatasetAddress`], [`HubError::Id`], [`HubError::Revision`].
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let refused = |why| HubError::DatasetAddress { address: text.to_owned(), why };
        let rest = text.strip_prefix(SCHEME);
        let rest =
            rest.ok_or_else(|| refused("expected hf://datasets/OWNER/NAME[/CONFIG][/SPLIT][:COLUMN]"))?;
        let (rest, column) = match rest.split_once(':') {
            Some((_, "")) => return Err(refused("no column after the colon")),
            Some((rest, column)) => (rest, Some(column.to_owned())),
            None => (rest, None),
        };
        let (id, revision, parts) = if let Some((id, rest)) = rest.split_once('@') {
            let (revision, parts) = split_revision(rest);
            (id.to_owned(), Revision::parse(&revision.replace("%2F", "/"))?, parts)
        } else {
            let mut parts = rest.splitn(3, '/');
            let id: Vec<&str> = parts.by_ref().take(2).collect();
            (id.join("/"), Revision::main(), parts.next())
        };
        let parts: Vec<&str> = parts.map(|parts| parts.split('/').collect()).unwrap_or_default();
        if parts.len() > 2 || parts.iter().any(|part| part.is_empty()) {
            return Err(refused("expected at most a configuration and a split after the name"));
        }
        let repo = RepoAddress { kind: RepoKind::Dataset, id: RepoId::parse(&id)?, revision };
        let part = |i: usize| parts.get(i).map(|part| part.replace("%2F", "/").replace("%25", "%"));
        Ok(Self { repo, config: part(0), split: part(1), column })
    }
}

/// `refs/X/Y` takes three parts, any other revision one.
fn split_revision(rest: &str) -> (&str, Option<&str>) {
    let parts = if rest.starts_with("refs/") { 3 } else { 1 };
    match rest.match_indices('/').nth(parts - 1) {
        Some((at, _)) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    }
}

/// The Parquet files of a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parquet<'a> {
    /// The configuration that was found.
    pub config: String,
    /// The split that was found.
    pub split: String,
    /// Its files in name order.
    pub files: Vec<&'a RepoFile>,
    /// Whether the Hub converted a part of the data set only.
    pub is_partial: bool,
}

/// Finds the files of a configuration and split by their names, as `datasets` and the Hub's own conversion give them:
/// `CONFIG/SPLIT-00000-of-00001.parquet`, `data/SPLIT-…`, `CONFIG/SPLIT/0000.parquet`, `SPLIT.parquet`.
///
/// # Errors
/// [`HubError::NoParquet`]; [`HubError::NoConfig`], [`HubError::WhichConfig`] and [`HubError::NoSplit`] with what there
/// is; [`HubError::Incomplete`] if names say that files are missing, [`HubError::Twice`] if they say that one is there
/// twice; [`HubError::Offline`] instead of these where the cache may lack what the commit has. A configuration that was
/// not named is the only one or `default`; a split, the only one or `train`.
pub fn parquet_of<'a>(
    snapshot: &'a Snapshot,
    config: Option<&str>,
    split: Option<&str>,
) -> Result<Parquet<'a>, HubError> {
    found_in(snapshot, config, split).map_err(|why| {
        if matches!(why, HubError::WhichConfig { .. }) {
            return why;
        }
        let asked = [config.unwrap_or(DEFAULT), split.unwrap_or("train")].join("/");
        snapshot.lacks(&format!("a file of {asked}"), why)
    })
}

fn found_in<'a>(
    snapshot: &'a Snapshot,
    config: Option<&str>,
    split: Option<&str>,
) -> Result<Parquet<'a>, HubError> {
    let found: Vec<Named<'a>> = snapshot.files.iter().filter_map(Named::new).collect();
    let subject = || snapshot.subject.clone();
    if found.is_empty() {
        return Err(HubError::NoParquet { subject: subject() });
    }
    let owned = |set: &BTreeSet<&str>| set.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let configs: BTreeSet<&str> = found.iter().map(|file| file.config).collect();
    let config = match config {
        Some(asked) => configs.get(asked).copied().ok_or_else(|| HubError::NoConfig {
            subject: subject(),
            asked: asked.to_owned(),
            has: owned(&configs),
        })?,
        None => one_of(&configs, DEFAULT)
            .ok_or_else(|| HubError::WhichConfig { subject: subject(), has: owned(&configs) })?,
    };
    let of_config = || found.iter().filter(|file| file.config == config);
    let splits: BTreeSet<&str> = of_config().map(|file| file.split).collect();
    let asked = split.unwrap_or("train");
    let chosen = if split.is_some() { splits.get(asked).copied() } else { one_of(&splits, asked) };
    let split = chosen.ok_or_else(|| HubError::NoSplit {
        subject: subject(),
        config: config.to_owned(),
        asked: asked.to_owned(),
        has: owned(&splits),
    })?;
    let of_split: Vec<&Named<'a>> = of_config().filter(|file| file.split == split).collect();
    is_whole(snapshot, config, split, &of_split)?;
    Ok(Parquet {
        config: config.to_owned(),
        split: split.to_owned(),
        files: of_split.iter().map(|named| named.file).collect(),
        is_partial: of_split.iter().any(|named| named.is_partial),
    })
}

/// Whether files that are numbered `-00000-of-00003` are each there, and there once: one that is missing is texts that
/// are missing, and a second set of them, which an upload over an older one leaves, is every text twice.
fn is_whole(snapshot: &Snapshot, config: &str, split: &str, files: &[&Named<'_>]) -> Result<(), HubError> {
    let (subject, config, split) = (snapshot.subject.clone(), config.to_owned(), split.to_owned());
    let mut numbered: BTreeMap<usize, &Named<'_>> = BTreeMap::new();
    for file in files {
        let Some((number, of)) = file.number else { continue };
        let other = numbered.values().find(|other| other.number.is_some_and(|(_, others)| others != of));
        if let Some(other) = other.or(numbered.get(&number)) {
            let files = [other, file].map(|named| named.file.path.clone());
            return Err(HubError::Twice { subject, config, split, files });
        }
        numbered.insert(number, file);
    }
    let of = numbered.values().find_map(|file| file.number).map_or(0, |(_, of)| of);
    let has = numbered.range(..of).count();
    if has < of { Err(HubError::Incomplete { subject, config, split, has, of }) } else { Ok(()) }
}

fn one_of<'a>(names: &BTreeSet<&'a str>, usual: &str) -> Option<&'a str> {
    if names.len() == 1 { names.first().copied() } else { names.get(usual).copied() }
}

struct Named<'a> {
    file: &'a RepoFile,
    config: &'a str,
    split: &'a str,
    /// Which of how many files of the split it is, by its name.
    number: Option<(usize, usize)>,
    is_partial: bool,
}

impl<'a> Named<'a> {
    fn new(file: &'a RepoFile) -> Option<Self> {
        let stem = file.path.strip_suffix(".parquet")?;
        let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        let is_number = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
        let (config, (split, number)) = if is_number && !folder.is_empty() {
            let (config, split) = folder.rsplit_once('/').unwrap_or(("", folder));
            (config, (split, None))
        } else {
            (folder, without_number(name))
        };
        let (split, is_partial) = match split.strip_prefix("partial-") {
            Some(split) => (split, true),
            None => (split, false),
        };
        let config = if matches!(config, "" | "data") { DEFAULT } else { config };
        Some(Self { file, config, split, number, is_partial })
    }
}

/// `train-00000-of-00003`, a hash perhaps behind it, is number 0 of 3 files of `train`.
fn without_number(name: &str) -> (&str, Option<(usize, usize)>) {
    let files = |rest: &str| {
        let mut parts = rest.splitn(4, '-');
        let number = |part: Option<&str>| {
            let digits = part.filter(|p| p.len() >= 5 && p.bytes().all(|b| b.is_ascii_digit()))?;
            digits.parse::<usize>().ok()
        };
        let which = number(parts.next())?;
        let of = (parts.next()? == "of").then(|| number(parts.next()))??;
        Some((which, of))
    };
    let mut ends = name.match_indices('-').map(|(at, _)| at);
    let found = ends.find_map(|at| Some((at, files(&name[at + 1..])?)));
    found.map_or((name, None), |(at, number)| (&name[..at], Some(number)))
}
