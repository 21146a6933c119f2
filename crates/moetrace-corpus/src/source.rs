//! Which data set is meant by `NAME=PATH[:column]`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::CorpusError;
use crate::read::{check_column, known_suffix};

/// A named file or folder, and the column that holds its texts if it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    /// 1 to 100 of `A-Z a-z 0-9 . _ -` beginning with a letter or digit: it becomes part of file names.
    pub name: String,
    /// A data file, or a folder of data files.
    pub path: PathBuf,
    /// The column to read, by name or (in csv) by number from 0; found by name if absent.
    pub column: Option<String>,
    /// Its files, where they are known beforehand: then those marked are read, and the others need not be there. Empty
    /// for whatever lies at the path, of which the file budget decides.
    pub listed: Vec<ListedFile>,
}

/// A file of a source, known before it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// Below the source's path, parts separated by `/`.
    pub path: String,
    /// Size on disk.
    pub bytes: u64,
    /// Whether it is read.
    pub read: bool,
}

impl SourceSpec {
    /// Reads `NAME=PATH[:column]` or `PATH[:column]`, whose name is then the file's without its suffixes.
    /// A path that exists is never split, so `=` and `:` may stand in it.
    ///
    /// # Errors
    /// [`CorpusError::SourceName`] and [`CorpusError::SourcePath`].
    pub fn parse(spec: &str) -> Result<Self, CorpusError> {
        let (name, rest) = match spec.split_once('=') {
            Some((name, rest)) if !Path::new(spec).exists() && !is_plain_with_column(spec) => {
                (Some(name), rest)
            }
            _ => (None, spec),
        };
        let (path, column) = split_column(rest);
        if path.is_empty() {
            return Err(CorpusError::SourcePath { spec: spec.to_owned() });
        }
        let name = match name {
            Some(name) => name.to_owned(),
            None => name_from(Path::new(path)),
        };
        if !is_name(&name) {
            return Err(CorpusError::SourceName { spec: spec.to_owned(), name });
        }
        Ok(Self { name, path: PathBuf::from(path), column: column.map(str::to_owned), listed: Vec::new() })
    }

    /// Refuses names of data sets that cannot be part of a file name, and one that is there twice.
    ///
    /// # Errors
    /// [`CorpusError::SourceName`] and [`CorpusError::SameName`].
    pub fn check_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), CorpusError> {
        let mut earlier = BTreeSet::new();
        for name in names {
            if !is_name(name) {
                return Err(CorpusError::SourceName { spec: name.to_owned(), name: name.to_owned() });
            }
            if !earlier.insert(name) {
                return Err(CorpusError::SameName { name: name.to_owned() });
            }
        }
        Ok(())
    }

    /// Refuses a path at which nothing lies.
    ///
    /// # Errors
    /// [`CorpusError::Io`].
    pub fn check_path(&self) -> Result<(), CorpusError> {
        std::fs::metadata(&self.path).map(drop).map_err(|error| CorpusError::io("open", &self.path, error))
    }

    /// Refuses a listed table that has not the column with the texts, by the first of those that are read.
    ///
    /// # Errors
    /// [`CorpusError::MissingColumn`], [`CorpusError::NoTextColumn`]; [`CorpusError::Damaged`] and
    /// [`CorpusError::Encrypted`] for a file that cannot be looked at.
    pub fn check_column(&self) -> Result<(), CorpusError> {
        let first = self.listed.iter().find(|file| file.read && file.path.ends_with(".parquet"));
        first.map_or(Ok(()), |file| check_column(&self.path.join(&file.path), self.column.as_deref()))
    }
}

/// `split=train/a.jsonl:text`: the path before the last colon exists as it stands.
fn is_plain_with_column(spec: &str) -> bool {
    spec.rsplit_once(':').is_some_and(|(path, _)| Path::new(path).exists())
}

fn split_column(path: &str) -> (&str, Option<&str>) {
    if Path::new(path).exists() {
        return (path, None);
    }
    match path.rsplit_once(':') {
        // A slash after the colon is part of a path, never of a column.
        Some((before, column)) if !column.is_empty() && !column.contains('/') => (before, Some(column)),
        _ => (path, None),
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= 100
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// The file's or folder's name without its known suffixes, other characters than a name's replaced by `-`.
fn name_from(path: &Path) -> String {
    let canonical = path.file_name().is_none().then(|| path.canonicalize().ok()).flatten();
    let path = canonical.as_deref().unwrap_or(path);
    let file = path.file_name().map(|f| f.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = if path.is_dir() { &file } else { &file[..file.len() - known_suffix(&file).len()] };
    let cleaned: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .take(100)
        .collect();
    cleaned.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(spec: &str) -> (String, String, Option<String>) {
        let s = SourceSpec::parse(spec).unwrap();
        (s.name, s.path.display().to_string(), s.column)
    }

    #[test]
    fn names_paths_and_columns_are_told_apart() {
        let is = |spec, name: &str, path: &str, column: Option<&str>| {
            assert_eq!(parsed(spec), (name.into(), path.into(), column.map(Into::into)), "{spec}");
        };
        is("imdb=data/train.jsonl.gz", "imdb", "data/train.jsonl.gz", None);
        is("imdb=data/train.jsonl:review", "imdb", "data/train.jsonl", Some("review"));
        is("data/train-1.jsonl.zst", "train-1", "data/train-1.jsonl.zst", None);
        is("data/my texts (1).csv:0", "my-texts--1", "data/my texts (1).csv", Some("0"));
        is("a=b:c/d.csv", "a", "b:c/d.csv", None);
    }

    #[test]
    fn names_that_could_leave_a_folder_are_refused() {
        for spec in ["../x=a.txt", "a/b=c.txt", ".x=a.txt", "=a.txt", "é=a.txt", "a b=c.txt"] {
            assert!(matches!(SourceSpec::parse(spec), Err(CorpusError::SourceName { .. })), "{spec}");
        }
        assert!(matches!(SourceSpec::parse("x="), Err(CorpusError::SourcePath { .. })));
        assert!(SourceSpec::parse("").is_err());
        let refused = SourceSpec::check_names(["a", ".."]).unwrap_err();
        assert!(matches!(refused, CorpusError::SourceName { .. }), "{refused}");
        let twice = SourceSpec::check_names(["a", "b", "a"]).unwrap_err();
        assert!(matches!(twice, CorpusError::SameName { .. }), "{twice}");
        assert!(SourceSpec::check_names(["a", "b"]).is_ok());
        assert!(matches!(
            SourceSpec::parse("a=not-there").unwrap().check_path(),
            Err(CorpusError::Io { .. })
        ));
    }

    #[test]
    fn a_path_that_exists_is_not_split() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("split=a:b.txt");
        std::fs::write(&odd, "x").unwrap();
        let odd = odd.display().to_string();
        assert_eq!(parsed(&odd), ("split-a-b".into(), odd.clone(), None));
        assert_eq!(parsed(&format!("{odd}:text")), ("split-a-b".into(), odd.clone(), Some("text".into())));
        assert_eq!(parsed(&format!("n={odd}:text")), ("n".into(), odd.clone(), Some("text".into())));
    }
}
