//! One file: what is there is kept, the rest is asked for, and the whole is checked before it gets its name.

use std::fs::{File, TryLockError};
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::{Body, http::StatusCode};

use crate::api::refused;
use crate::cache::RepoCache;
use crate::check::BUFFER;
use crate::event::Listener;
use crate::http::{Broken, Http, LONGEST_PAUSE, Rest, beginning, busy, header, wait_asked};
use crate::partial::Partial;
use crate::url::encoded;
use crate::write::create_parent;
use crate::{Commit, FileHash, HubError, HubEvent, RepoFile, Subject};

/// Downloads with the wrong hash before the error stands; a second one rules out a proxy that spoiled the first.
const WRONG: u32 = 2;

/// How often bytes that came may be given up for others in one call. A server that knows no ranges, or a listing that is
/// not true, would else have the file sent again and again.
const RESTARTS: u32 = 5;

/// Bytes of a wrong body that are looked at for a message.
const GLANCE: u64 = 512;

/// Between two looks at a lock that another process holds.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What a download needs to know.
pub(crate) struct Download<'a> {
    pub(crate) http: &'a Http,
    pub(crate) cache: &'a RepoCache,
    pub(crate) subject: &'a Arc<Subject>,
    pub(crate) commit: &'a Commit,
}

impl Download<'_> {
    /// Makes the blob of a file. One process at a time does it, others wait; where locks do not work both do, each into
    /// a file of its own.
    pub(crate) fn run(
        &self,
        file: &RepoFile,
        hash: &FileHash,
        listener: Listener<'_>,
    ) -> Result<(), HubError> {
        let lock = self.lock(&file.path, hash, listener)?;
        // Whoever held the lock may have brought it.
        let is_there = match self.cache.found(self.commit, file) {
            Some(path) => self.cache.is_sound(&path, hash, &mut || ())?,
            None => false,
        };
        if !is_there {
            self.fetch(file, hash, listener)?;
        }
        drop(lock);
        Ok(())
    }

    /// Where a file is.
    pub(crate) fn url(&self, file: &RepoFile) -> String {
        let (page, path) = (self.subject.address.page(), encoded(&file.path, true));
        self.http.url(&format!("{page}/resolve/{}/{path}", self.commit))
    }

    fn lock(&self, file: &str, hash: &FileHash, listener: Listener<'_>) -> Result<File, HubError> {
        let path = self.cache.lock_file(hash);
        create_parent(&path)?;
        let lock =
            File::options().create(true).append(true).open(&path).map_err(HubError::io("create", &path))?;
        let mut told = false;
        while matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            if !told {
                listener(&HubEvent::Waiting { file });
                told = true;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(lock)
    }

    fn fetch(&self, file: &RepoFile, hash: &FileHash, listener: Listener<'_>) -> Result<(), HubError> {
        let url = self.url(file);
        let mut partial = Partial::open(self.cache, file, hash)?;
        listener(&HubEvent::Begun { file: &file.path, bytes: file.bytes, have: partial.have() });
        let (mut best, mut idle, mut wrong) = (partial.have(), 0, 0);
        loop {
            let (why, asked) = match self.receive(&url, file, &mut partial, listener) {
                Ok(()) if partial.hash() == *hash => break,
                Ok(()) => {
                    wrong += 1;
                    let got = partial.hash().to_string();
                    if wrong >= WRONG {
                        partial.discard();
                        let expected = hash.to_string();
                        return Err(HubError::Hash { file: file.path.clone(), expected, got });
                    }
                    partial.begin_again()?;
                    (format!("it is {got}, expected {hash}"), None)
                }
                Err(Stop::Broken(Broken::Passing(why))) => (why, None),
                Err(Stop::Busy(status, asked)) => {
                    if idle >= self.http.retries() || asked.is_some_and(|s| s > LONGEST_PAUSE) {
                        return Err(busy(&url, status, asked));
                    }
                    (format!("the server answered {}", status.as_u16()), asked)
                }
                Err(Stop::Broken(Broken::Final(error))) => {
                    if partial.have() == 0 {
                        partial.discard();
                    }
                    return Err(error);
                }
            };
            // Only repetitions that bring nothing count: a slow line may break a hundred times. What was there before
            // and comes once more is nothing.
            idle = if partial.have() > best { 0 } else { idle + 1 };
            best = best.max(partial.have());
            if idle > self.http.retries() || partial.restarts() > RESTARTS {
                let (have, bytes) = (partial.have(), file.bytes);
                if have == 0 {
                    partial.discard();
                }
                return Err(HubError::Interrupted { file: file.path.clone(), have, bytes, why });
            }
            let pause = asked.map_or_else(|| self.http.pause(idle.saturating_sub(1)), Duration::from_secs);
            listener(&HubEvent::Again { file: &file.path, why: &why, pause });
            std::thread::sleep(pause);
        }
        partial.commit(&self.cache.blob(hash))?;
        self.cache.blob_is_sound(hash);
        listener(&HubEvent::Done { file: &file.path });
        Ok(())
    }

    /// Asks for what is missing and adds it.
    fn receive(
        &self,
        url: &str,
        file: &RepoFile,
        partial: &mut Partial,
        listener: Listener<'_>,
    ) -> Result<(), Stop> {
        if partial.have() == file.bytes && file.bytes > 0 {
            return Ok(());
        }
        let validator = partial.validator().map(str::to_owned);
        let rest =
            (partial.have() > 0).then_some(Rest { from: partial.have(), validator: validator.as_deref() });
        let mut response = match self.http.get(url, rest, None) {
            // A network that goes away in the middle may come back.
            Err(Broken::Final(HubError::Unreachable { why, .. })) if partial.have() > 0 => {
                return Err(Stop::Broken(Broken::Passing(why)));
            }
            other => other?,
        };
        let (status, headers) = (response.status(), response.headers().clone());
        if let Some(asked) = wait_asked(status, &headers) {
            return Err(Stop::Busy(status, asked));
        }
        match status.as_u16() {
            // The server sends all of it: it knows no ranges, or the bytes here are of something else.
            200 => partial.begin_again()?,
            206 if rest.is_some() => {
                is_rest(&headers, partial.have(), file).map_err(|why| restart(partial, why))?;
            }
            416 => return Err(restart(partial, "the server has no such range".to_owned())),
            _ => {
                let text = self.glance(&mut response);
                return Err(self.refused(url, file, (status, &headers, &text)).into());
            }
        }
        let expected = file.bytes - partial.have();
        if let Some(got) = response.body().content_length().filter(|got| *got != expected) {
            let said = self.glance(&mut response);
            let got = got.saturating_add(partial.have());
            return Err(HubError::Length { file: file.path.clone(), expected: file.bytes, got, said }.into());
        }
        partial.came_with(header(&headers, "etag"));
        add_all(response, file, partial, listener)
    }

    /// The first words of a body that is not the file.
    fn glance(&self, response: &mut Response<Body>) -> String {
        let mut bytes = Vec::new();
        let _ = response.body_mut().as_reader().take(GLANCE).read_to_end(&mut bytes);
        beginning(&self.http.without_secrets(&String::from_utf8_lossy(&bytes)))
    }

    pub(crate) fn refused(
        &self,
        url: &str,
        file: &RepoFile,
        answer: (StatusCode, &HeaderMap, &str),
    ) -> HubError {
        match refused(self.http, self.subject, url, answer) {
            // The listing has it, and the repository was there a moment ago.
            HubError::NoRepo { subject, status: 404, .. } => {
                HubError::NoFile { subject, file: file.path.clone() }
            }
            HubError::Status { status: 404, .. } => {
                HubError::NoFile { subject: self.subject.clone(), file: file.path.clone() }
            }
            other => other,
        }
    }
}

/// Why no more bytes came.
enum Stop {
    Broken(Broken),
    Busy(StatusCode, Option<u64>),
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<HubError> for Stop {
    fn from(error: HubError) -> Self {
        Self::Broken(Broken::Final(error))
    }
}

/// Nothing that is there can be gone on with.
fn restart(partial: &mut Partial, why: String) -> Stop {
    match partial.begin_again() {
        Ok(()) => Stop::Broken(Broken::Passing(why)),
        Err(error) => error.into(),
    }
}

/// Whether `Content-Range: bytes FROM-TO/OF` is what was asked for.
pub(crate) fn is_rest(headers: &HeaderMap, from: u64, file: &RepoFile) -> Result<(), String> {
    let range = header(headers, "content-range").unwrap_or_default();
    let parts = range.strip_prefix("bytes ").and_then(|range| {
        let (span, of) = range.split_once('/')?;
        let (begin, end) = span.split_once('-')?;
        Some((begin.parse::<u64>().ok()?, end.parse::<u64>().ok()?, of))
    });
    let is_it = parts.is_some_and(|(begin, end, of)| {
        begin == from && end.checked_add(1) == Some(file.bytes) && (of == "*" || of == file.bytes.to_string())
    });
    if is_it { Ok(()) } else { Err(format!("the server sent range {range:?}, expected bytes {from}-")) }
}

fn add_all(
    mut response: Response<Body>,
    file: &RepoFile,
    partial: &mut Partial,
    listener: Listener<'_>,
) -> Result<(), Stop> {
    let (mut body, mut buffer) = (response.body_mut().as_reader(), vec![0; BUFFER]);
    while partial.have() <= file.bytes {
        let n = match body.read(&mut buffer) {
            Ok(n) => n,
            Err(error) => return Err(Stop::Broken(Broken::Passing(error.to_string()))),
        };
        if n == 0 {
            break;
        }
        if partial.have() + n as u64 > file.bytes {
            let (have, expected) = (partial.have(), file.bytes);
            partial.begin_again()?;
            let (file, got, said) = (file.path.clone(), have + n as u64, "and more".to_owned());
            return Err(HubError::Length { file, expected, got, said }.into());
        }
        partial.add(&buffer[..n])?;
        listener(&HubEvent::Received { file: &file.path, have: partial.have() });
    }
    if partial.have() < file.bytes {
        return Err(Stop::Broken(Broken::Passing("the connection ended".to_owned())));
    }
    Ok(())
}
