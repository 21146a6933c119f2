//! Requests: one connection pool, redirects followed by hand, the token for the endpoint alone.

use std::io::ErrorKind;
use std::time::Duration;

use ureq::config::Config;
use ureq::http::{HeaderMap, HeaderValue, Response, StatusCode};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body};

use crate::url::{host, joined, origin, password, shown};
use crate::way::{proxy, roots};
use crate::{HubError, HubEvent, HubSettings, Token};

/// Redirects followed for one request; the Hub needs two.
const REDIRECTS: usize = 8;

/// Most bytes of an answer that is read as text.
const TEXT_LIMIT: u64 = 64 << 20;

/// Most time that a JSON answer may take in all.
const TEXT_TIME: Duration = Duration::from_mins(2);

/// Longest pause that a server may ask for and get; beyond it, the user is told.
pub(crate) const LONGEST_PAUSE: u64 = 120;

/// Characters of an error's body that a message quotes.
const QUOTED: usize = 120;

/// Where a request broke.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Trying again may help.
    Passing(String),
    /// It will not.
    Final(HubError),
}

impl From<HubError> for Broken {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

/// The part of a file that is asked for: all from `from` on, if it is still the same entity.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rest<'a> {
    pub(crate) from: u64,
    pub(crate) validator: Option<&'a str>,
}

/// The agent, and what goes with every request.
pub(crate) struct Http {
    agent: Agent,
    endpoint: String,
    token: Option<Token>,
    proxy: Option<String>,
    retries: u32,
    pause: Duration,
    notice: fn(&HubEvent<'_>),
}

impl Http {
    pub(crate) fn new(settings: &HubSettings) -> Result<Self, HubError> {
        let endpoint = settings.endpoint.trim_end_matches('/').to_owned();
        if origin(&endpoint).is_none() || endpoint.contains(['?', '#']) {
            let (found, expected) = (shown(&endpoint), "http://HOST or https://HOST, without a query");
            return Err(HubError::Setting { what: "the endpoint", found, expected });
        }
        let mut config = Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(settings.user_agent.as_str())
            .timeout_resolve(Some(settings.connect_timeout))
            .timeout_connect(Some(settings.connect_timeout))
            .timeout_per_read(Some(settings.read_timeout))
            .timeout_per_write(Some(settings.read_timeout));
        // Without a network nothing of the way there matters.
        let way = Some(settings).filter(|settings| !settings.offline);
        config = config.proxy(way.and_then(|way| way.proxy.as_ref()).map(proxy).transpose()?);
        if let Some(file) = way.and_then(|way| way.root_certificates.as_ref()) {
            config = config.tls_config(TlsConfig::builder().root_certs(roots(file)?).build());
        }
        Ok(Self {
            agent: config.build().into(),
            endpoint,
            token: settings.token.clone(),
            proxy: settings.proxy.as_ref().map(|proxy| proxy.shown().to_owned()),
            retries: settings.retries,
            pause: settings.pause,
            notice: settings.notice,
        })
    }

    /// The address of a path below the endpoint.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint)
    }

    /// The endpoint for a message: user and password are left out.
    pub(crate) fn endpoint(&self) -> String {
        shown(&self.endpoint)
    }

    /// A text from a server for a message: one that repeats what it was sent would else have the token shown.
    pub(crate) fn without_secrets(&self, text: &str) -> String {
        let token = self.token.as_ref().map(Token::secret);
        let password = password(&self.endpoint);
        [token, password]
            .into_iter()
            .flatten()
            .fold(text.to_owned(), |text, secret| text.replace(secret, "(not shown)"))
    }

    /// The same for the headers of an answer.
    fn headers_without_secrets(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            let text = value.to_str().unwrap_or_default();
            let clean = self.without_secrets(text);
            if clean != text {
                *value = HeaderValue::from_str(&clean).unwrap_or(HeaderValue::from_static(""));
            }
        }
    }

    /// Where the token came from.
    pub(crate) fn token_source(&self) -> Option<String> {
        self.token.as_ref().map(|token| token.source().to_owned())
    }

    pub(crate) fn retries(&self) -> u32 {
        self.retries
    }

    /// The pause before a repetition, doubled each time.
    pub(crate) fn pause(&self, repetition: u32) -> Duration {
        self.pause.saturating_mul(1 << repetition.min(6))
    }

    /// One GET, redirects followed. Any status is an answer.
    pub(crate) fn get(
        &self,
        url: &str,
        rest: Option<Rest<'_>>,
        whole: Option<Duration>,
    ) -> Result<Response<Body>, Broken> {
        let mut url = url.to_owned();
        for _ in 0..REDIRECTS {
            let mut request = self.agent.get(url.as_str()).config().timeout_global(whole).build();
            if let Some(token) = self.token.as_ref().filter(|_| origin(&url) == origin(&self.endpoint)) {
                request = request.header("Authorization", token.header());
            }
            if let Some(Rest { from, validator }) = rest {
                request = request.header("Range", format!("bytes={from}-"));
                if let Some(validator) = validator {
                    request = request.header("If-Range", validator);
                }
            }
            let mut response = request.call().map_err(|error| self.broken(&url, &error))?;
            self.headers_without_secrets(response.headers_mut());
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let target = header(response.headers(), "location").unwrap_or_default();
            url = joined(&url, target).ok_or_else(|| HubError::Redirect {
                url: shown(&url),
                why: format!("to {:?}", shown(target)),
            })?;
        }
        Err(HubError::Redirect { url: shown(&url), why: "in circles".to_owned() }.into())
    }

    /// A GET whose answer is text, repeated while the failure may pass. Any status but 429 and 5xx is an answer.
    pub(crate) fn text(&self, url: &str) -> Result<(StatusCode, HeaderMap, String), HubError> {
        let (status, headers, body) = self.bytes(url, None, TEXT_LIMIT)?;
        Ok((status, headers, self.without_secrets(&String::from_utf8_lossy(&body))))
    }

    /// The same for bytes, at most `limit` of them. Where a part is asked for and all would come, nothing is read.
    pub(crate) fn bytes(
        &self,
        url: &str,
        rest: Option<Rest<'_>>,
        limit: u64,
    ) -> Result<(StatusCode, HeaderMap, Vec<u8>), HubError> {
        let mut repetition = 0;
        loop {
            let (why, asked) = match self.get(url, rest, Some(TEXT_TIME)) {
                Ok(mut response) => {
                    let (status, headers) = (response.status(), response.headers().clone());
                    match wait_asked(status, &headers) {
                        None if rest.is_some() && status == StatusCode::OK => {
                            return Ok((status, headers, Vec::new()));
                        }
                        None => match response.body_mut().with_config().limit(limit).read_to_vec() {
                            Ok(body) => return Ok((status, headers, body)),
                            Err(error) => (error.to_string(), None),
                        },
                        Some(asked) => {
                            if repetition >= self.retries || asked.is_some_and(|s| s > LONGEST_PAUSE) {
                                return Err(busy(url, status, asked));
                            }
                            (format!("the server answered {}", status.as_u16()), asked)
                        }
                    }
                }
                Err(Broken::Passing(why)) => (why, None),
                Err(Broken::Final(error)) => return Err(error),
            };
            if repetition >= self.retries {
                return Err(self.unreachable(url, why));
            }
            let pause = asked.map_or_else(|| self.pause(repetition), Duration::from_secs);
            (self.notice)(&HubEvent::Busy { host: &host(url), why: &why, pause });
            std::thread::sleep(pause);
            repetition += 1;
        }
    }

    pub(crate) fn unreachable(&self, url: &str, why: String) -> HubError {
        HubError::Unreachable { host: host(url), why, proxy: self.proxy.clone(), cached: false }
    }

    /// Names that cannot be resolved, doors that are shut and certificates that are not trusted stay so; a line that
    /// breaks may not.
    fn broken(&self, url: &str, error: &ureq::Error) -> Broken {
        let passing = match error {
            ureq::Error::Io(io) => matches!(
                io.kind(),
                ErrorKind::ConnectionReset
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::BrokenPipe
                    | ErrorKind::UnexpectedEof
                    | ErrorKind::TimedOut
                    | ErrorKind::Interrupted
                    | ErrorKind::WouldBlock
                    | ErrorKind::NotConnected
            ),
            ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => true,
            _ => false,
        };
        if passing {
            Broken::Passing(error.to_string())
        } else {
            self.unreachable(url, error.to_string()).into()
        }
    }
}

/// Too often, or for too long.
pub(crate) fn busy(url: &str, status: StatusCode, retry_after: Option<u64>) -> HubError {
    HubError::Busy { host: host(url), status: status.as_u16(), retry_after }
}

/// `Some` where the server is busy or broken: with the seconds it asks for, if it says so in seconds.
#[expect(clippy::option_option, reason = "busy or not, and if it is, with a time or without")]
pub(crate) fn wait_asked(status: StatusCode, headers: &HeaderMap) -> Option<Option<u64>> {
    let is_busy = matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504);
    is_busy.then(|| header(headers, "retry-after").and_then(|value| value.trim().parse().ok()))
}

/// A header's text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The first words of a body, for a message.
pub(crate) fn beginning(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let short: String = line.chars().take(QUOTED).collect();
    if short.len() < line.len() { format!("{short}…") } else { short }
}
