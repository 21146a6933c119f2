//! Hashing what arrives.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::FileHash;

/// Bytes read at once.
pub(crate) const BUFFER: usize = 1 << 20;

/// A hash of the kind that a file is listed with.
#[derive(Debug, Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    /// For a file of so many bytes: git hashes its length first.
    pub(crate) fn new(kind: &FileHash, bytes: u64) -> Self {
        match kind {
            FileHash::Sha256(_) => Self::Sha256(Sha256::new()),
            FileHash::Git(_) => Self::Git(Sha1::new_with_prefix(format!("blob {bytes}\0"))),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    /// Adds what a file holds, from its beginning.
    pub(crate) fn update_from(&mut self, path: &Path) -> io::Result<()> {
        let (mut file, mut buffer) = (File::open(path)?, vec![0; BUFFER]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                n => self.update(&buffer[..n]),
            }
        }
    }

    pub(crate) fn finish(self) -> FileHash {
        let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
        let hex = |bytes: &[u8]| bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect();
        match self {
            Self::Sha256(hasher) => FileHash::Sha256(hex(&hasher.finalize())),
            Self::Git(hasher) => FileHash::Git(hex(&hasher.finalize())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(kind: &FileHash, bytes: &[u8]) -> String {
        let mut hasher = Hasher::new(kind, bytes.len() as u64);
        hasher.update(bytes);
        hasher.finish().hex().to_owned()
    }

    #[test]
    fn hashes_are_those_of_git_and_of_sha256sum() {
        let git = FileHash::Git(String::new());
        // `git hash-object /dev/null`, and `printf 'hello\n' | git hash-object --stdin`.
        assert_eq!(hash_of(&git, b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(hash_of(&git, b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            hash_of(&FileHash::Sha256(String::new()), b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
