//! In: repositories made of names and bytes, and faults for some of the requests to come.
//! Out: a server on 127.0.0.1 that answers as the Hugging Face Hub does, and what it was asked.
//! Holds: the routes of the Hub that moetrace and Python's client use, and a second server that has the large files.
//! Not here: TLS, uploads, accounts; nothing but tests and `cargo run -p loopback-hub` uses it.

mod fault;
mod repo;
mod request;
mod routes;
mod wire;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use fault::Fault;
pub use repo::{Kind, Repo, git_hash, sha256};
pub use request::Seen;

use fault::Scripted;

/// How long [`LoopbackHub::seen`] waits for conversations to end.
const WRITTEN_DOWN: Duration = Duration::from_millis(500);

/// A running hub; dropping it ends it.
pub struct LoopbackHub {
    state: Arc<State>,
    servers: Vec<JoinHandle<()>>,
}

/// What both servers share.
pub(crate) struct State {
    pub(crate) endpoint: String,
    /// Where large files are: another port, which for a client is another host.
    pub(crate) cdn: String,
    pub(crate) repos: Mutex<Vec<Repo>>,
    pub(crate) faults: Mutex<Vec<Scripted>>,
    seen: Mutex<Vec<Seen>>,
    /// Conversations that have not ended.
    busy: AtomicUsize,
    ends: AtomicBool,
}

/// A lock that a panicking test may have poisoned.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LoopbackHub {
    /// Starts both servers on free ports.
    ///
    /// # Errors
    /// Whatever the system says of listening on 127.0.0.1.
    pub fn start() -> io::Result<Self> {
        let (hub, cdn) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        let state = Arc::new(State {
            endpoint: format!("http://{}", hub.local_addr()?),
            cdn: format!("http://{}", cdn.local_addr()?),
            repos: Mutex::default(),
            faults: Mutex::default(),
            seen: Mutex::default(),
            busy: AtomicUsize::new(0),
            ends: AtomicBool::new(false),
        });
        let servers = [hub, cdn].map(|listener| {
            let state = Arc::clone(&state);
            std::thread::spawn(move || serve(&listener, &state))
        });
        Ok(Self { state, servers: servers.into() })
    }

    /// What `HF_ENDPOINT` is to be.
    pub fn url(&self) -> &str {
        &self.state.endpoint
    }

    /// Adds a repository, or replaces the one of its name.
    pub fn publish(&self, repo: Repo) {
        let mut repos = locked(&self.state.repos);
        repos.retain(|other| (other.kind, &other.id) != (repo.kind, &repo.id));
        repos.push(repo);
    }

    /// The next `times` requests whose path contains `part` meet the fault.
    pub fn fault(&self, part: &str, times: usize, fault: Fault) {
        locked(&self.state.faults).push(Scripted { part: part.to_owned(), times, fault });
    }

    /// Every request so far, to either server, in order. A client has its last byte a moment before that is written
    /// down, which is waited for, if not for long: a fault may keep a conversation for many seconds.
    pub fn seen(&self) -> Vec<Seen> {
        let begun = Instant::now();
        while self.state.busy.load(Ordering::SeqCst) > 0 && begun.elapsed() < WRITTEN_DOWN {
            std::thread::sleep(Duration::from_millis(1));
        }
        locked(&self.state.seen).clone()
    }

    /// Forgets the requests and the faults so far.
    pub fn forget(&self) {
        locked(&self.state.seen).clear();
        locked(&self.state.faults).clear();
    }

    /// Bytes of files that were sent since then, whether from this host or from the other.
    pub fn file_bytes_sent(&self) -> u64 {
        let is_file = |seen: &&Seen| seen.path.contains("/resolve/") || seen.path.starts_with("/cdn/");
        self.seen().iter().filter(is_file).map(|seen| seen.sent).sum()
    }
}

impl Drop for LoopbackHub {
    fn drop(&mut self) {
        self.state.ends.store(true, Ordering::SeqCst);
        for url in [&self.state.endpoint, &self.state.cdn] {
            // A last connection wakes the thread that waits for one.
            drop(TcpStream::connect(url.trim_start_matches("http://")));
        }
        for server in self.servers.drain(..) {
            let _ = server.join();
        }
    }
}

fn serve(listener: &TcpListener, state: &Arc<State>) {
    for stream in listener.incoming() {
        if state.ends.load(Ordering::SeqCst) {
            return;
        }
        let (Ok(stream), state) = (stream, Arc::clone(state)) else { continue };
        state.busy.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || {
            // A client that goes away in the middle is what half of the tests are about.
            let _ = converse(&stream, &state);
            state.busy.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// One request and its answer; the connection is then closed.
fn converse(stream: &TcpStream, state: &State) -> io::Result<()> {
    let Some(mut request) = Seen::read(stream)? else { return Ok(()) };
    let place = {
        let mut seen = locked(&state.seen);
        seen.push(request.clone());
        seen.len() - 1
    };
    let fault = fault::take(&mut locked(&state.faults), &request.path);
    let answer = routes::answer(state, &request);
    request.sent = wire::send(stream, &request, answer, fault.as_ref())?;
    if let Some(seen) = locked(&state.seen).get_mut(place) {
        seen.sent = request.sent;
    }
    Ok(())
}
