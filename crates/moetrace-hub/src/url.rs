//! Addresses: whose they are, where redirects lead, and what of them may be shown.

/// Scheme and authority.
pub(crate) fn origin(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().filter(|a| !a.is_empty())?;
    matches!(scheme, "http" | "https").then(|| &url[..scheme.len() + 3 + authority.len()])
}

/// The host of an address, without user and password.
pub(crate) fn host(url: &str) -> String {
    let origin = origin(url).unwrap_or(url);
    let rest = origin.split_once("://").map_or(origin, |(_, rest)| rest);
    rest.rsplit_once('@').map_or(rest, |(_, host)| host).to_owned()
}

/// The password in an address, if it has one.
pub(crate) fn password(url: &str) -> Option<&str> {
    let (_, authority) = origin(url)?.split_once("://")?;
    let (user, _) = authority.rsplit_once('@')?;
    user.split_once(':').map(|(_, password)| password).filter(|password| !password.is_empty())
}

/// An address for a message: queries hold signatures, what stands before an @ may be a password.
pub(crate) fn shown(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or(url);
    match plain.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{authority}{path}")
        }
        None => plain.to_owned(),
    }
}

/// Where a redirect leads: http or https, and never from the second to the first.
pub(crate) fn joined(from: &str, target: &str) -> Option<String> {
    let base = origin(from)?;
    let url = if target.starts_with("//") {
        format!("{}:{target}", base.split(':').next()?)
    } else if target.starts_with('/') {
        format!("{base}{target}")
    } else {
        target.to_owned()
    };
    let is_worse = from.starts_with("https:") && !url.starts_with("https:");
    origin(&url).is_some_and(|_| !is_worse).then_some(url)
}

/// A path or a part of one for a URL: everything but letters, digits and a few signs as `%XX`.
pub(crate) fn encoded(text: &str, keep_slashes: bool) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b) || (keep_slashes && b == b'/');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_http_and_never_out_of_https() {
        let from = "https://hub.example/a/b?x=1";
        assert_eq!(joined(from, "/c?sig=1").as_deref(), Some("https://hub.example/c?sig=1"));
        assert_eq!(joined(from, "//cdn.example/c").as_deref(), Some("https://cdn.example/c"));
        assert_eq!(joined(from, "https://cdn.example/c").as_deref(), Some("https://cdn.example/c"));
        for target in ["http://cdn.example/c", "file:///etc/passwd", "", "ftp://x/y", "https://", "c"] {
            assert_eq!(joined(from, target), None, "{target}");
        }
        assert!(joined("http://127.0.0.1:1/a", "https://cdn.example/c").is_some());
    }

    #[test]
    fn addresses_are_shown_without_signatures_and_passwords() {
        assert_eq!(shown("https://me:CANARY@hub.example/a?X-Signature=CANARY#f"), "https://hub.example/a");
        assert_eq!(shown("https://hub.example?CANARY"), "https://hub.example");
        assert_eq!(host("https://me:CANARY@hub.example:8443/a"), "hub.example:8443");
    }

    #[test]
    fn a_password_is_found_where_there_is_one() {
        assert_eq!(password("https://me:CAN@RY@hub.example/a"), Some("CAN@RY"));
        for url in ["https://me@hub.example", "https://me:@hub.example", "https://hub.example:8443/a:b@c"] {
            assert_eq!(password(url), None, "{url}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(origin("http://127.0.0.1:80/a"), Some("http://127.0.0.1:80"));
        assert_ne!(origin("http://127.0.0.1:80/a"), origin("http://127.0.0.1:81/a"));
        assert_ne!(origin("http://hub.example/"), origin("https://hub.example/"));
        assert_ne!(origin("https://hub.example.evil/"), origin("https://hub.example/"));
        assert_eq!(origin("hub.example"), None);
    }

    #[test]
    fn paths_are_encoded_byte_by_byte() {
        assert_eq!(encoded("refs/convert/parquet", false), "refs%2Fconvert%2Fparquet");
        assert_eq!(encoded("data/é ?#%.parquet", true), "data/%C3%A9%20%3F%23%25.parquet");
    }
}
