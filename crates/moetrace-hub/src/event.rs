//! What a download tells while it goes on.

use std::time::Duration;

/// Something happened to a file; names are those in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HubEvent<'a> {
    /// A list is asked for again after a pause.
    Busy {
        /// Who was asked.
        host: &'a str,
        /// What happened.
        why: &'a str,
        /// The pause before.
        pause: Duration,
    },
    /// Another process downloads the file; it is waited for.
    Waiting {
        /// The file.
        file: &'a str,
    },
    /// A file that another program put into the cache, or that changed there, is compared with its hash.
    Checking {
        /// The file.
        file: &'a str,
        /// Its size.
        bytes: u64,
    },
    /// A file in the cache has not the bytes that it is named for; it is downloaded again.
    Spoilt {
        /// The file.
        file: &'a str,
    },
    /// The download begins, or goes on where an earlier one ended.
    Begun {
        /// The file.
        file: &'a str,
        /// Its size.
        bytes: u64,
        /// Bytes that are there already.
        have: u64,
    },
    /// Bytes arrived.
    Received {
        /// The file.
        file: &'a str,
        /// How many are there now.
        have: u64,
    },
    /// The download broke off and is taken up again.
    Again {
        /// The file.
        file: &'a str,
        /// What happened.
        why: &'a str,
        /// The pause before.
        pause: Duration,
    },
    /// The file is there and checked.
    Done {
        /// The file.
        file: &'a str,
    },
}

/// Whoever listens.
pub(crate) type Listener<'a> = &'a mut dyn FnMut(&HubEvent<'_>);
