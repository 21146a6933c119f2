//! Who is let in, and what of a token leaves this process.

use loopback_hub::Fault;
use moetrace_hub::{HubError, RepoAddress};

use crate::bench::{Bench, TINY, files, tiny};

const CANARY: &str = "hf_CANARY_0123456789abcdef";

#[test]
fn the_token_goes_to_the_endpoint_and_to_no_other_host() {
    let bench = Bench::new().with_token(CANARY);
    bench.fetch(TINY, &["config.json", "model.safetensors"]).unwrap();
    for seen in bench.server.seen() {
        let is_elsewhere = seen.path.starts_with("/cdn/");
        assert_eq!(seen.headers.contains_key("authorization"), !is_elsewhere, "{}", seen.path);
    }
    for path in files(bench.dir.path()) {
        let held = std::fs::read(&path).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&held).contains("CANARY"), "{}", path.display());
    }
}

#[test]
fn a_gated_model_says_where_its_terms_are_accepted_and_opens_with_the_right_token() {
    let bench = Bench::new();
    let mut repo = tiny();
    repo.gated_for = Some(CANARY.to_owned());
    bench.server.publish(repo.clone());
    let error = bench.fetch(TINY, &["config.json"]).unwrap_err();
    let HubError::Gated { subject, status: 401 } = &error else { panic!("{error}") };
    assert_eq!(subject.page, format!("{}/{TINY}", bench.server.url()));
    assert!(error.to_string().contains("token: not set"), "{error}");
    let other = Bench::new().with_token("hf_somebody_else_CANARY");
    other.server.publish(repo.clone());
    let error = other.fetch(TINY, &["config.json"]).unwrap_err();
    assert!(matches!(&error, HubError::Gated { status: 403, .. }), "{error}");
    assert!(error.to_string().contains("set by HF_TOKEN (not shown)"), "{error}");
    let right = Bench::new().with_token(CANARY);
    right.server.publish(repo);
    right.fetch(TINY, &["config.json", "model.safetensors"]).unwrap();
}

#[test]
fn a_model_that_is_not_there_comes_with_similar_names() {
    let bench = Bench::new();
    let error = bench.hub().snapshot(&RepoAddress::model("owner/tinny").unwrap()).unwrap_err();
    assert!(matches!(&error, HubError::NoRepo { similar, .. } if similar.is_empty()), "{error}");
    let error = bench.hub().snapshot(&RepoAddress::model("owner/tiny-2").unwrap()).unwrap_err();
    assert!(matches!(&error, HubError::NoRepo { similar, .. } if similar == &[TINY]), "{error}");
    assert!(error.to_string().contains("similar names: owner/tiny"), "{error}");
    let error = bench.hub().snapshot(&RepoAddress::model("owner/tiny@v9").unwrap()).unwrap_err();
    assert!(matches!(&error, HubError::NoRevision { .. }), "{error}");
}

#[test]
fn no_message_holds_a_token_or_a_signature() {
    let bench = Bench::new().with_token(CANARY);
    let mut said = Vec::new();
    for status in [204, 400, 401, 403, 404, 409, 418, 429, 500, 503] {
        for part in ["/api/", "/resolve/", "/cdn/"] {
            bench.server.forget();
            bench.server.fault(
                part,
                99,
                Fault::Instead(status, vec!["Retry-After: 999".into()], b"no".to_vec()),
            );
            let error = bench.fetch(TINY, &["model.safetensors"]).unwrap_err();
            said.push(format!("{error} {error:?}"));
        }
    }
    bench.server.forget();
    bench.server.fault("/cdn/", 99, Fault::Cut(0));
    let error = bench.fetch(TINY, &["model.safetensors"]).unwrap_err();
    said.push(format!("{error} {error:?} {:?}", bench.hub().settings()));
    let to = "Location: ftp://elsewhere/x?X-Signature=CANARY".to_owned();
    bench.server.forget();
    bench.server.fault("/resolve/", 99, Fault::Instead(302, vec![to], vec![]));
    said.push(bench.fetch(TINY, &["model.safetensors"]).unwrap_err().to_string());
    assert_eq!(said.len(), 32);
    for text in said {
        assert!(!text.contains("CANARY"), "{text}");
    }
}

#[test]
fn whose_token_it_is_can_be_asked() {
    assert_eq!(Bench::new().with_token(CANARY).hub().whoami().unwrap().name, "somebody");
    let error = Bench::new().with_token("CANARY").hub().whoami().unwrap_err();
    assert!(matches!(&error, HubError::BadToken { source_name } if source_name == "HF_TOKEN"), "{error}");
    let bench = Bench::new();
    assert!(matches!(bench.hub().whoami(), Err(HubError::Status { status: 401, .. })));
    // The same answer where a model is asked for.
    let bench = bench.with_token("CANARY");
    let headers = vec!["X-Error-Message: Invalid credentials in Authorization header".to_owned()];
    bench.server.fault("/api/", 9, Fault::Instead(401, headers, vec![]));
    let error = bench.fetch(TINY, &["config.json"]).unwrap_err();
    assert!(matches!(&error, HubError::BadToken { .. }), "{error}");
}

/// What a client says of answers that repeat the `Authorization` header, in every place that a message quotes.
#[test]
fn a_server_that_repeats_the_token_does_not_have_it_shown() {
    let bench = Bench::new().with_token(CANARY);
    let echo = format!("<html> you sent Bearer {CANARY}");
    let headers =
        [format!("X-Error-Message: token Bearer {CANARY} denied"), format!("Location: ftp://{CANARY}/")];
    let json = format!("\"{echo}\"");
    let mut said = Vec::new();
    for part in ["/revision/", "/tree/", "/resolve/", "/cdn/"] {
        for (status, body) in
            [(200, &echo), (200, &json), (302, &echo), (401, &echo), (403, &echo), (418, &echo)]
        {
            for headers in [&headers[..], &[]] {
                bench.server.forget();
                bench.server.fault(
                    part,
                    99,
                    Fault::Instead(status, headers.to_vec(), body.clone().into_bytes()),
                );
                let error = bench.fetch(TINY, &["model.safetensors"]).unwrap_err();
                said.push(format!("{error} {error:?}"));
            }
        }
    }
    assert!(said.iter().any(|text| text.contains("you sent Bearer (not shown)")), "{said:#?}");
    for text in said {
        assert!(!text.contains("CANARY"), "{text}");
    }
    bench.server.forget();
    bench.server.fault("whoami", 99, Fault::Instead(418, vec![], echo.clone().into_bytes()));
    let error = bench.hub().whoami().unwrap_err().to_string();
    assert!(error.contains("you sent") && !error.contains("CANARY"), "{error}");
}

#[test]
fn the_password_of_an_endpoint_is_not_shown() {
    let mut bench = Bench::new();
    bench.settings.endpoint = bench.server.url().replace("http://", "http://bob:CANARY@");
    let hub = bench.hub();
    assert_eq!(hub.endpoint(), bench.server.url());
    let mut said = vec![hub.endpoint()];
    let error = hub.snapshot(&RepoAddress::model("owner/nobody").unwrap()).unwrap_err();
    let HubError::NoRepo { subject, .. } = &error else { panic!("{error}") };
    said.extend([subject.page.clone(), error.to_string()]);
    bench.server.fault("/api/", 99, Fault::Instead(418, vec![], b"bob:CANARY".to_vec()));
    said.push(bench.fetch(TINY, &["config.json"]).unwrap_err().to_string());
    for text in said {
        assert!(!text.contains("CANARY"), "{text}");
    }
    let mut settings = bench.settings.clone();
    settings.endpoint += "/?key=CANARY";
    let error = moetrace_hub::Hub::new(settings).err().unwrap().to_string();
    assert!(error.contains("without a query") && !error.contains("CANARY"), "{error}");
}
