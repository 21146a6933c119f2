//! The way to the Hub: a proxy, and the certificates that are trusted.

use std::fs;
use std::path::Path;

use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};
use ureq::{Proxy, ProxyProtocol};

use crate::{HubError, ProxySettings};

/// A proxy with the hosts that are reached without it.
pub(crate) fn proxy(settings: &ProxySettings) -> Result<Proxy, HubError> {
    let refused = || HubError::Setting {
        what: "the proxy",
        found: settings.shown().to_owned(),
        expected: "http://HOST:PORT or https://HOST:PORT; SOCKS is not spoken",
    };
    let plain = Proxy::new(&settings.url).map_err(|_| refused())?;
    if !matches!(plain.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) {
        return Err(refused());
    }
    let mut builder = Proxy::builder(plain.protocol()).host(plain.host()).port(plain.port());
    if let Some(user) = plain.username() {
        builder = builder.username(user);
    }
    if let Some(password) = plain.password() {
        builder = builder.password(password);
    }
    for host in settings.except.split(',').map(str::trim).filter(|host| !host.is_empty()) {
        builder = builder.no_proxy(host);
    }
    builder.build().map_err(|_| refused())
}

/// The certificates of a PEM file; one that cannot be read is left out, as other programs do.
pub(crate) fn roots(file: &Path) -> Result<RootCerts, HubError> {
    let refused = |why: &str| HubError::Setting {
        what: "the file of certificates",
        found: format!("{}{why}", file.display()),
        expected: "a file of PEM certificates",
    };
    let pem = fs::read(file).map_err(|error| refused(&format!(" ({error})")))?;
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(refused(""));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}
