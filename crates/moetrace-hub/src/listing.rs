//! The files of a repository, and which names may become paths.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::is_lower_hex;

/// What the bytes of a file hash to; also the name of its blob in the cache, as `ETag` has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileHash {
    /// SHA-256 of a large file.
    Sha256(String),
    /// SHA-1 of `blob LENGTH\0` and the bytes: git's own name of any other file.
    Git(String),
}

impl FileHash {
    /// The hash that an `ETag` or a blob's name is, by its number of digits.
    pub(crate) fn named(hex: &str) -> Option<Self> {
        if is_lower_hex(hex, 64) {
            Some(Self::Sha256(hex.to_owned()))
        } else {
            is_lower_hex(hex, 40).then(|| Self::Git(hex.to_owned()))
        }
    }

    /// The digits.
    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::Git(hex) => hex,
        }
    }
}

impl fmt::Display for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(hex) => write!(f, "sha256 {hex}"),
            Self::Git(hex) => write!(f, "git blob {hex}"),
        }
    }
}

/// One file of a repository at a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoFile {
    /// Parts separated by `/`, none of which can leave the folder.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its hash; `None` for a file that another program put into the cache without one.
    pub hash: Option<FileHash>,
}

impl RepoFile {
    /// Whether it lies at the top of the repository.
    pub fn is_top(&self) -> bool {
        !self.path.contains('/')
    }
}

/// Whether a name from a server may become a path below a folder: parts that are not empty, not `.` and not `..`, and
/// neither a backslash nor a colon (which are paths elsewhere) nor a control character in any.
pub(crate) fn is_safe(name: &str) -> bool {
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255;
    let is_allowed = |c: char| !c.is_control() && !matches!(c, '\\' | ':');
    name.len() <= 1024 && name.chars().all(is_allowed) && name.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_leave_a_folder_are_not_safe() {
        for name in [
            "",
            ".",
            "..",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "a/",
            "/",
            "a/./b",
            "..\\x",
            "c:x",
            "a\0b",
            "a\nb",
            "a/..",
        ] {
            assert!(!is_safe(name), "{name:?}");
        }
        for name in ["config.json", "data/train-00000-of-00001.parquet", "..x", "a b.json", "naïve.json"] {
            assert!(is_safe(name), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn a_safe_name_has_normal_parts_only(name in "[./\\\\a:\u{0}-\u{1f}]{0,12}") {
            if is_safe(&name) {
                prop_assert!(Path::new(&name).components().all(|c| matches!(c, Component::Normal(_))));
                prop_assert_eq!(Path::new(&name).components().count(), name.split('/').count());
            }
        }
    }
}
