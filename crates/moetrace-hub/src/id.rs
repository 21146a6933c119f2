//! What things are called on the Hub: repositories, revisions, commits. All of them become parts of paths and of
//! URLs, so nothing passes that could leave a folder or end a path.

use std::fmt;

use crate::HubError;

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RepoKind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

impl RepoKind {
    /// The plural, as it stands in API routes and in names of cache folders.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }

    /// What stands before `OWNER/NAME` in the address of a page or a file.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Model => "",
            Self::Dataset => "datasets/",
        }
    }
}

/// `OWNER/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepoId {
    owner: String,
    name: String,
}

/// Most characters of an owner or a name (`huggingface_hub`, `utils/_validators.py`).
const PART_LENGTH: usize = 96;

impl RepoId {
    /// Reads `OWNER/NAME`: both 1 to 96 of `A-Z a-z 0-9 . _ -`, neither beginning nor ending with `.` or `-`, and
    /// without `..` or `--`, which separates the two in names of cache folders.
    ///
    /// # Errors
    /// [`HubError::Id`] with what is wrong.
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let refused = |why| HubError::Id { id: text.to_owned(), why };
        let (owner, name) = text.split_once('/').ok_or_else(|| refused("expected OWNER/NAME"))?;
        for part in [owner, name] {
            if let Some(why) = objection(part) {
                return Err(refused(why));
            }
        }
        Ok(Self { owner: owner.to_owned(), name: name.to_owned() })
    }

    /// Who it belongs to.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn objection(part: &str) -> Option<&'static str> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if part.is_empty() || part.len() > PART_LENGTH {
        return Some("expected 1 to 96 characters on each side of the slash");
    }
    if !part.bytes().all(is_allowed) {
        return Some("expected letters, digits, '.', '_' and '-' on each side of one slash");
    }
    let is_edge = |c: char| matches!(c, '.' | '-');
    if part.starts_with(is_edge) || part.ends_with(is_edge) || part.contains("..") || part.contains("--") {
        return Some("expected no '.' or '-' at an end, and no '..' or '--'");
    }
    None
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// A branch, a tag, a reference such as `refs/convert/parquet`, or a commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Revision(String);

impl Revision {
    /// What the Hub takes where no revision is asked for.
    pub fn main() -> Self {
        Self("main".to_owned())
    }

    /// The branch with the Hub's own Parquet conversion of a data set.
    pub fn parquet() -> Self {
        Self("refs/convert/parquet".to_owned())
    }

    /// Reads a revision: 1 to 200 of `A-Z a-z 0-9 . _ / + -`, no part between slashes empty or beginning with `.`.
    /// `~parquet` is [`Revision::parquet`], as the Hub's own tools have it.
    ///
    /// # Errors
    /// [`HubError::Revision`].
    pub fn parse(text: &str) -> Result<Self, HubError> {
        if text == "~parquet" {
            return Ok(Self::parquet());
        }
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"._/+-".contains(&b);
        let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains("..");
        if text.len() > 200 || !text.bytes().all(is_allowed) || !text.split('/').all(is_part) {
            return Err(HubError::Revision { revision: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was asked for.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The revision if it is a commit already.
    pub(crate) fn commit(&self) -> Option<Commit> {
        Commit::parse(&self.0)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 40 hexadecimal digits, lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Commit(String);

impl Commit {
    /// A commit, if the text is one.
    pub fn parse(text: &str) -> Option<Self> {
        is_lower_hex(text, 40).then(|| Self(text.to_owned()))
    }

    /// The 40 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether the text is so many hexadecimal digits in lower case.
pub(crate) fn is_lower_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A repository at a revision.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepoAddress {
    /// What it holds.
    pub kind: RepoKind,
    /// What it is called.
    pub id: RepoId,
    /// Which state of it is asked for.
    pub revision: Revision,
}

impl RepoAddress {
    /// Reads `OWNER/NAME` or `OWNER/NAME@REVISION` of a model.
    ///
    /// # Errors
    /// [`HubError::Id`] and [`HubError::Revision`].
    pub fn model(text: &str) -> Result<Self, HubError> {
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Revision::parse(revision)?),
            None => (text, Revision::main()),
        };
        Ok(Self { kind: RepoKind::Model, id: RepoId::parse(id)?, revision })
    }

    /// The same repository at another revision.
    #[must_use]
    pub fn at(&self, revision: Revision) -> Self {
        Self { revision, ..self.clone() }
    }

    /// The path of its page below the endpoint.
    pub(crate) fn page(&self) -> String {
        format!("{}{}", self.kind.prefix(), self.id)
    }
}

impl fmt::Display for RepoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_revisions_are_read() {
        for (text, shown) in [
            ("allenai/OLMoE-1B-7B-0125", "allenai/OLMoE-1B-7B-0125@main"),
            ("mistralai/Mixtral-8x7B-v0.1@refs/pr/7", "mistralai/Mixtral-8x7B-v0.1@refs/pr/7"),
            ("a/b_c.d@v1.0", "a/b_c.d@v1.0"),
            ("a/b@~parquet", "a/b@refs/convert/parquet"),
        ] {
            assert_eq!(RepoAddress::model(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_could_leave_a_folder_or_a_url_is_no_id_and_no_revision() {
        for text in [
            "", "a", "/", "a/", "/b", "a/b/c", "../b", "a/..", "a/.b", "a/b.", "-a/b", "a/b--c", "a/b?c",
            "a/b c", "a/b#c", "a\\b", "a/é", "a/b%2e", "a/b\n",
        ] {
            assert!(matches!(RepoAddress::model(text), Err(HubError::Id { .. })), "{text:?}");
        }
        for text in ["", "..", "a/../b", "/a", "a/", "a//b", ".a", "a b", "a?b", "a#b", "a\\b", "é", "a%2fb"]
        {
            assert!(matches!(Revision::parse(text), Err(HubError::Revision { .. })), "{text:?}");
        }
        assert!(RepoAddress::model(&format!("a/{}", "b".repeat(97))).is_err());
    }

    #[test]
    fn commits_are_forty_digits_in_lower_case() {
        assert!(Commit::parse(&"a1".repeat(20)).is_some());
        for text in ["main", &"A1".repeat(20), &"a1".repeat(19), "../../../../evil"] {
            assert!(Commit::parse(text).is_none(), "{text}");
        }
    }
}
