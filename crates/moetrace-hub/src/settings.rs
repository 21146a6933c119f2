//! Everything the client takes from outside; the environment is read by whoever makes this.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::{HubError, HubEvent};

/// Where the Hub is, where files are kept, and who asks.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// `https://huggingface.co` or a mirror of it; a slash at the end is of no effect.
    pub endpoint: String,
    /// The cache folder, which Python's client calls `HF_HUB_CACHE`.
    pub cache: PathBuf,
    /// Who asks; sent to the endpoint and to no other host.
    pub token: Option<Token>,
    /// Use what the cache has and open no connection.
    pub offline: bool,
    /// How requests name the program.
    pub user_agent: String,
    /// The proxy that requests go through.
    pub proxy: Option<ProxySettings>,
    /// A file of PEM certificates to trust instead of those that are compiled in.
    pub root_certificates: Option<PathBuf>,
    /// Most time to connect.
    pub connect_timeout: Duration,
    /// Most time in which nothing arrives.
    pub read_timeout: Duration,
    /// How often a request that failed on the way is repeated; of a download, without a byte in between.
    pub retries: u32,
    /// The pause before the first repetition, doubled before each further one.
    pub pause: Duration,
    /// Called before a request for a list is repeated, which may be after minutes.
    pub notice: fn(&HubEvent<'_>),
}

impl HubSettings {
    /// The public Hub, with a cache folder and nothing else set.
    pub fn new(cache: PathBuf) -> Self {
        Self {
            endpoint: "https://huggingface.co".to_owned(),
            cache,
            token: None,
            offline: false,
            user_agent: concat!("moetrace/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxy: None,
            root_certificates: None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(10),
            retries: 4,
            pause: Duration::from_secs(1),
            notice: |_| (),
        }
    }
}

/// A proxy and the hosts that are reached without it.
#[derive(Clone)]
pub struct ProxySettings {
    /// `http://[USER:PASSWORD@]HOST:PORT`; never shown whole.
    pub url: String,
    /// Hosts and `.suffixes` separated by commas, as `NO_PROXY` has them.
    pub except: String,
}

impl ProxySettings {
    /// Host and port, without user and password.
    pub fn shown(&self) -> &str {
        let rest = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        rest.split('/').next().unwrap_or(rest)
    }
}

impl fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proxy {} except {:?}", self.shown(), self.except)
    }
}

/// An access token. It is sent, and never shown: not by `Debug`, not in an error.
#[derive(Clone)]
pub struct Token {
    secret: String,
    source: String,
}

impl Token {
    /// Takes a token, blanks around it removed, and the name of where it came from.
    ///
    /// # Errors
    /// [`HubError::Token`] if it is empty or holds what cannot stand in a header; the message has the source only.
    pub fn new(secret: &str, source: &str) -> Result<Self, HubError> {
        let secret = secret.trim();
        if secret.is_empty() || !secret.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(HubError::Token { source_name: source.to_owned() });
        }
        Ok(Self { secret: secret.to_owned(), source: source.to_owned() })
    }

    /// Where it came from, such as `HF_TOKEN`.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    /// The value of the `Authorization` header.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.secret)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token from {} (not shown)", self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_token_nor_password_is_shown() {
        let mut settings = HubSettings::new("cache".into());
        settings.token = Some(Token::new(" hf_CANARY\n", "HF_TOKEN").unwrap());
        let url = "http://user:CANARY@proxy.example:3128/".to_owned();
        settings.proxy = Some(ProxySettings { url, except: "localhost".into() });
        let shown = format!("{settings:?}");
        assert!(!shown.contains("CANARY"), "{shown}");
        assert!(shown.contains("HF_TOKEN") && shown.contains("proxy.example:3128"), "{shown}");
        let refused = Token::new("hf_CANARY\r\nHost: evil", "HF_TOKEN").unwrap_err().to_string();
        assert!(!refused.contains("CANARY") && refused.contains("HF_TOKEN"), "{refused}");
        assert!(Token::new(" ", "HF_TOKEN").is_err());
    }
}
