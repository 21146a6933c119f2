//! What the environment says about the Hub, under the names that Python's client gave them.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use moetrace_hub::{Hub, HubEvent, HubSettings, ProxySettings, Token};

use crate::failure::{Failure, code};
use crate::output;

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

/// A client that is soon told that nobody answers: it asks once.
pub(crate) fn hasty_client(offline: bool) -> Result<Hub, Failure> {
    let settings = settings(&|name| std::env::var_os(name), offline)?;
    let times = (Duration::from_secs(3), Duration::from_secs(5));
    Ok(Hub::new(HubSettings { connect_timeout: times.0, read_timeout: times.1, retries: 0, ..settings })?)
}

/// Where models and data sets of the Hub are kept.
pub(crate) fn cache_folder() -> Result<PathBuf, Failure> {
    Ok(Environment(&|name| std::env::var_os(name)).folders()?.0)
}

fn settings(variables: Variables<'_>, offline: bool) -> Result<HubSettings, Failure> {
    let environment = Environment(variables);
    let (cache, home) = environment.folders()?;
    let mut settings = HubSettings::new(cache);
    settings.notice = told;
    if let Some(endpoint) = environment.text("HF_ENDPOINT")? {
        settings.endpoint = endpoint;
    }
    settings.offline = offline || environment.is_on("HF_HUB_OFFLINE")?;
    if settings.offline {
        // Neither the way to the Hub nor who asks matters.
        return Ok(settings);
    }
    let token_file = environment.path("HF_TOKEN_PATH").or_else(|| home.map(|home| home.join("token")));
    // Unlike a token that was asked for, one that lies about is not sent where that is switched off.
    if !environment.is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN")? {
        settings.token = environment.token(token_file.as_deref())?;
    }
    if let Some(seconds) = environment.text(TIMEOUT)? {
        let whole = seconds.trim().parse().ok().filter(|seconds| (1..=MOST_TIMEOUT).contains(seconds));
        let expected = format!("{TIMEOUT} is {seconds:?}, expected whole seconds from 1 to {MOST_TIMEOUT}");
        settings.read_timeout = Duration::from_secs(whole.ok_or_else(|| refused(expected, TIMEOUT))?);
    }
    settings.proxy = environment.proxy(&settings.endpoint)?;
    let mut trusted = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"].into_iter();
    let trusted = trusted.find_map(|name| environment.set(name)).map(PathBuf::from);
    let of_system = || CERTIFICATES.iter().map(PathBuf::from).find(|file| file.is_file());
    settings.root_certificates = trusted.or_else(of_system);
    Ok(settings)
}

/// Most seconds in which nothing arrives, and the longest that is taken for meant.
const TIMEOUT: &str = "HF_HUB_DOWNLOAD_TIMEOUT";
const MOST_TIMEOUT: u64 = 86_400;

fn refused(what: String, name: &str) -> Failure {
    Failure::new(code::CONFIG, "E-HUB-SETTING", what, format!("correct {name}, or unset it"))
}

/// Told before a request is repeated.
fn told(event: &HubEvent<'_>) {
    if let HubEvent::Busy { host, why, pause } = event {
        output::tell(format_args!("{host}: {why}; asking again in {:.0} s", pause.as_secs_f64()));
    }
}

/// The variables, read as Python's client reads them.
struct Environment<'a>(Variables<'a>);

impl Environment<'_> {
    fn set(&self, name: &str) -> Option<OsString> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// The cache, and the folder of logins above it, if there is one.
    fn folders(&self) -> Result<(PathBuf, Option<PathBuf>), Failure> {
        let user = || self.path("XDG_CACHE_HOME").or_else(|| Some(self.path("HOME")?.join(".cache")));
        let home = self.path("HF_HOME").or_else(|| user().map(|cache| cache.join("huggingface")));
        let cache = self
            .path("HF_HUB_CACHE")
            .or_else(|| self.path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| home.as_ref().map(|home| home.join("hub")))
            .ok_or_else(|| {
                let what =
                    "no cache folder for the Hub: none of HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME and HOME is set";
                let help = "set HF_HOME to a folder that can be written";
                Failure::new(code::NO_OUTPUT, "E-CACHE", what, help)
            })?;
        Ok((cache, home))
    }

    /// A text. Passed over, another host than the one meant would be asked, or nobody's token sent.
    fn text(&self, name: &str) -> Result<Option<String>, Failure> {
        let text = self.set(name).map(OsString::into_string).transpose();
        text.map_err(|_| refused(format!("{name} is no UTF-8"), name))
    }

    fn is_on(&self, name: &str) -> Result<bool, Failure> {
        let value = self.text(name)?.unwrap_or_default().to_ascii_lowercase();
        Ok(matches!(value.as_str(), "1" | "true" | "yes" | "on"))
    }

    /// A path, `~` and `$NAME` at its beginning or in it replaced (`os.path.expanduser` and `expandvars`).
    fn path(&self, name: &str) -> Option<PathBuf> {
        match self.set(name)?.into_string() {
            Ok(text) => Some(PathBuf::from(self.expanded(&text))),
            Err(bytes) => Some(PathBuf::from(bytes)),
        }
    }

    fn expanded(&self, text: &str) -> OsString {
        let mut out = OsString::new();
        let mut rest = text;
        if let Some(home) = self.set("HOME").filter(|_| rest == "~" || rest.starts_with("~/")) {
            out.push(home);
            rest = &rest[1..];
        }
        while let Some((before, after)) = rest.split_once('$') {
            out.push(before);
            let (name, behind) = variable(after);
            let value = self.set(name).filter(|_| !name.is_empty());
            // One that is not set stays as it is written.
            out.push(value.unwrap_or_else(|| format!("${}", &after[..after.len() - behind.len()]).into()));
            rest = behind;
        }
        out.push(rest);
        out
    }

    /// The token, and where it came from. One of blanks alone is none.
    fn token(&self, file: Option<&Path>) -> Result<Option<Token>, Failure> {
        for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
            if let Some(secret) = self.text(name)?.filter(|secret| !secret.trim().is_empty()) {
                return Ok(Some(Token::new(&secret, name)?));
            }
        }
        let Some(file) = file else { return Ok(None) };
        match read_token(file) {
            Ok(secret) if secret.trim().is_empty() => Ok(None),
            Ok(secret) => Ok(Some(Token::new(&secret, &format!("the file {}", file.display()))?)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            // Passed over, a login would seem not to be.
            Err(error) => {
                let what = format!("the token cannot be read from {}: {error}", file.display());
                let help = "log in anew with 'hf auth login', or remove the file, or set HF_TOKEN";
                Err(Failure::new(code::PERMISSION, "E-AUTH", what, help))
            }
        }
    }

    /// The proxy for the endpoint's scheme.
    fn proxy(&self, endpoint: &str) -> Result<Option<ProxySettings>, Failure> {
        let either = |upper: &str| match self.text(upper)? {
            None => self.text(&upper.to_ascii_lowercase()),
            found => Ok(found),
        };
        let scheme = if endpoint.starts_with("http:") { "HTTP_PROXY" } else { "HTTPS_PROXY" };
        let url = match either(scheme)? {
            None => either("ALL_PROXY")?,
            found => found,
        };
        let Some(url) = url else { return Ok(None) };
        Ok(Some(ProxySettings { url, except: either("NO_PROXY")?.unwrap_or_default() }))
    }
}

/// Longer than any token.
const MOST_TOKEN: u64 = 65_536;

/// What a login wrote. Of a device or a pipe, which may have no end, nothing is read.
fn read_token(file: &Path) -> io::Result<String> {
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    let length = File::open(file)?.take(MOST_TOKEN + 1).read_to_string(&mut text)? as u64;
    if length > MOST_TOKEN { Err(io::Error::other("it is too long for a token")) } else { Ok(text) }
}

/// The name behind a `$`, with or without braces, and what follows it.
fn variable(after: &str) -> (&str, &str) {
    if let Some((name, behind)) = after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
        return (name, behind);
    }
    let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
    after.split_at(end)
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
    fn paths_are_expanded_as_pythons_client_does() {
        let variables = |path: &'static str| [("HOME", "/h"), ("SCRATCH", "/s"), ("HF_HUB_CACHE", path)];
        for (path, cache) in [
            ("~/hub", "/h/hub"),
            ("~", "/h"),
            ("~me/hub", "~me/hub"),
            ("a~/hub", "a~/hub"),
            ("$SCRATCH/hub", "/s/hub"),
            ("${SCRATCH}x/$HOME", "/sx//h"),
            ("/a/$NOT_SET/${NOT_SET}/$", "/a/$NOT_SET/${NOT_SET}/$"),
        ] {
            assert_eq!(with(&variables(path)).cache, PathBuf::from(cache), "{path}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn what_is_no_text_is_refused_and_not_passed_over() {
        use std::os::unix::ffi::OsStringExt as _;
        for name in ["HF_ENDPOINT", "HF_TOKEN", "HTTPS_PROXY", "https_proxy", "HF_HUB_OFFLINE"] {
            let find = |asked: &str| match asked {
                "HOME" => Some(OsString::from("/h")),
                _ => (asked == name).then(|| OsString::from_vec(b"http://h\xff".to_vec())),
            };
            let failure = settings(&find, false).unwrap_err();
            assert_eq!((failure.exit, failure.name), (78, "E-HUB-SETTING"), "{name}");
            assert!(failure.what.contains(name), "{}", failure.what);
        }
    }

    #[test]
    fn a_timeout_is_whole_seconds() {
        let of = |value: &str| {
            let find = |name: &str| match name {
                "HOME" => Some(OsString::from("/h")),
                _ => (name == TIMEOUT).then(|| OsString::from(value)),
            };
            settings(&find, false).map(|settings| settings.read_timeout.as_secs())
        };
        assert_eq!(of(" 30 ").ok(), Some(30));
        for value in ["0", "abc", "1.5", "-1", "99999999999"] {
            assert_eq!(of(value).unwrap_err().name, "E-HUB-SETTING", "{value}");
        }
    }

    #[test]
    fn a_token_of_blanks_is_none() {
        for blank in [" ", "\n", "\t \n"] {
            assert!(with(&[("HOME", "/h"), ("HF_TOKEN", blank)]).token.is_none(), "{blank:?}");
            let other = [("HOME", "/h"), ("HF_TOKEN", blank), ("HUGGING_FACE_HUB_TOKEN", "hf_x")];
            assert_eq!(with(&other).token.unwrap().source(), "HUGGING_FACE_HUB_TOKEN");
        }
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
