//! What the environment says about the Hub, under the names that Python's client gave them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use moetrace_hub::{Hub, HubSettings, ProxySettings, Token};

use crate::failure::{Failure, code};

/// Where systems keep the certificates they trust: Debian, Fedora, SUSE, Alpine.
const CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Reads one variable; tests give another function.
type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A client set up by the environment.
pub(crate) fn client(offline: bool) -> Result<Hub, Failure> {
    let settings = settings(&|name| std::env::var_os(name), offline)?;
    Ok(Hub::new(settings)?)
}

fn settings(variables: Variables<'_>, offline: bool) -> Result<HubSettings, Failure> {
    let set = |name: &str| variables(name).filter(|value| !value.is_empty());
    let path = |name: &str| set(name).map(PathBuf::from);
    let text = |name: &str| set(name).and_then(|value| value.into_string().ok());
    let user = || path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")));
    let home = path("HF_HOME").or_else(|| user().map(|cache| cache.join("huggingface")));
    let cache = path("HF_HUB_CACHE")
        .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| home.as_ref().map(|home| home.join("hub")))
        .ok_or_else(|| {
            let what =
                "no cache folder for the Hub: none of HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME and HOME is set";
            Failure::new(code::NO_OUTPUT, "E-CACHE", what, "set HF_HOME to a folder that can be written")
        })?;
    let mut settings = HubSettings::new(cache);
    if let Some(endpoint) = text("HF_ENDPOINT") {
        settings.endpoint = endpoint;
    }
    settings.offline = offline || is_on(text("HF_HUB_OFFLINE"));
    let token_file = path("HF_TOKEN_PATH").or_else(|| home.map(|home| home.join("token")));
    // Unlike a token that was asked for, one that lies about is not sent where that is switched off.
    if !is_on(text("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
        settings.token = token(&text, token_file.as_deref())?;
    }
    if let Some(seconds) = text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|seconds| seconds.trim().parse().ok()) {
        settings.read_timeout = Duration::from_secs(seconds);
    }
    settings.proxy = proxy(&text, &settings.endpoint);
    let trusted = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"].into_iter().find_map(path);
    let of_system = || CERTIFICATES.iter().map(PathBuf::from).find(|file| file.is_file());
    settings.root_certificates = trusted.or_else(of_system);
    Ok(settings)
}

fn is_on(value: Option<String>) -> bool {
    value.is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
}

/// The token, and where it came from.
fn token(text: &dyn Fn(&str) -> Option<String>, file: Option<&Path>) -> Result<Option<Token>, Failure> {
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        if let Some(secret) = text(name) {
            return Ok(Some(Token::new(&secret, name)?));
        }
    }
    let found = file.and_then(|file| Some((file, std::fs::read_to_string(file).ok()?)));
    match found.filter(|(_, secret)| !secret.trim().is_empty()) {
        Some((file, secret)) => Ok(Some(Token::new(&secret, &format!("the file {}", file.display()))?)),
        None => Ok(None),
    }
}

/// The proxy for the endpoint's scheme.
fn proxy(text: &dyn Fn(&str) -> Option<String>, endpoint: &str) -> Option<ProxySettings> {
    let either = |upper: &str| text(upper).or_else(|| text(&upper.to_ascii_lowercase()));
    let scheme = if endpoint.starts_with("http:") { "HTTP_PROXY" } else { "HTTPS_PROXY" };
    let url = either(scheme).or_else(|| either("ALL_PROXY"))?;
    Some(ProxySettings { url, except: either("NO_PROXY").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> HubSettings {
        let find =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value));
        settings(&find, false).unwrap()
    }

    #[test]
    fn the_cache_is_where_pythons_client_has_it() {
        for (variables, cache) in [
            (&[("HOME", "/h")][..], "/h/.cache/huggingface/hub"),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HOME", "/h"), ("HF_HOME", "/f")], "/f/hub"),
            (&[("HOME", "/h"), ("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")], "/c"),
            (&[("HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "")], "/old"),
        ] {
            assert_eq!(with(variables).cache, PathBuf::from(cache), "{variables:?}");
        }
        let failure = settings(&|_| None, false).unwrap_err();
        assert_eq!((failure.exit, failure.name), (73, "E-CACHE"));
    }

    #[test]
    fn a_token_comes_from_the_environment_before_the_file_of_a_login() {
        let home = std::env::temp_dir().join(format!("moetrace-token-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("token"), "hf_file\n").unwrap();
        let folder = home.to_str().unwrap();
        let source =
            |variables: &[(&str, &str)]| with(variables).token.map(|token| token.source().to_owned());
        assert!(source(&[("HF_HOME", folder)]).unwrap().contains("token"));
        assert_eq!(source(&[("HF_HOME", folder), ("HF_TOKEN", "hf_env")]).as_deref(), Some("HF_TOKEN"));
        assert_eq!(source(&[("HF_HOME", folder), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(source(&[("HF_HOME", "/nowhere")]), None);
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn offline_endpoint_and_proxy_are_read() {
        for (value, offline) in [("1", true), ("ON", true), ("yes", true), ("0", false), ("", false)] {
            assert_eq!(with(&[("HOME", "/h"), ("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
        let both = [
            ("HOME", "/h"),
            ("HTTPS_PROXY", "http://s:1"),
            ("http_proxy", "http://p:2"),
            ("NO_PROXY", "a,.b"),
        ];
        let proxy = with(&both).proxy.unwrap();
        assert_eq!((proxy.shown(), proxy.except.as_str()), ("s:1", "a,.b"));
        let plain = [&both[..], &[("HF_ENDPOINT", "http://hub")]].concat();
        assert_eq!(with(&plain).proxy.unwrap().shown(), "p:2");
    }
}
