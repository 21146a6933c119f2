//! What holds of the page's text, without a browser.

use std::collections::BTreeSet;

use moetrace_report::{ReportInput, figures, page};
use proptest::prelude::*;

use crate::SMALL;
use crate::hostile::PAYLOADS;
use crate::synthetic::{self, Shape};

fn hostile_page() -> String {
    let datasets: Vec<String> = PAYLOADS.iter().take(6).map(|&p| p.to_owned()).collect();
    let run = synthetic::run(&SMALL, &datasets, |i| PAYLOADS[i % PAYLOADS.len()].to_owned()).unwrap();
    page(&ReportInput { run: &run, other: Some(&run), fidelity: None }).unwrap()
}

/// Names of all elements and attributes that a lax reader of HTML would find: every `<name` and every ` name=` in it.
fn tags(html: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut elements, mut attributes) = (BTreeSet::new(), BTreeSet::new());
    // What lies between script and style tags is not markup; the tests on the island are about it.
    let mut rest = html;
    while let Some(open) = rest.find('<') {
        rest = &rest[open + 1..];
        let name: String = rest.chars().take_while(|c| !c.is_whitespace() && *c != '>').collect();
        let end = rest.find('>').unwrap_or(rest.len());
        for part in rest[..end].split('"').step_by(2) {
            for word in part.split_whitespace().filter(|w| w.ends_with('=')) {
                attributes.insert(word.trim_end_matches('=').to_owned());
            }
        }
        elements.insert(name.clone());
        rest = &rest[end..];
        if name == "script" || name == "style" {
            rest = &rest[rest.find(&format!("</{name}>")).unwrap()..];
        }
    }
    (elements, attributes)
}

#[test]
fn foreign_strings_add_no_element_and_no_attribute() {
    let datasets: Vec<String> = (0..6).map(|i| format!("plain {i}")).collect();
    let plain = synthetic::run(&SMALL, &datasets, |i| format!("plain {i}")).unwrap();
    let plain = page(&ReportInput { run: &plain, other: Some(&plain), fidelity: None }).unwrap();
    assert_eq!(tags(&hostile_page()), tags(&plain));
    assert!(
        tags(&plain).0.contains("svg") && tags(&plain).1.contains("data-t"),
        "the reader of tags reads tags"
    );
}

#[test]
fn no_address_is_loaded_and_no_attribute_runs_code() {
    let (elements, attributes) = tags(&hostile_page());
    for banned in
        ["img", "iframe", "object", "embed", "link", "base", "form", "image", "use", "foreignObject"]
    {
        assert!(!elements.contains(banned), "{banned}");
    }
    for attribute in attributes {
        assert!(!attribute.starts_with("on") && attribute != "src" && attribute != "style", "{attribute}");
    }
}

#[test]
fn every_id_is_there_once() {
    let text = hostile_page();
    let ids = text.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let mut seen = BTreeSet::new();
    assert_eq!(ids.filter(|id| !seen.insert(*id)).collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(seen.contains("chart-balance"), "{seen:?}");
}

#[test]
fn control_characters_are_shown_and_not_written() {
    let text = hostile_page();
    let unseen = |c: &char| (c.is_control() && *c != '\n') || ('\u{2028}'..='\u{202e}').contains(c);
    assert_eq!(text.chars().find(unseen), None);
}

#[test]
fn the_policy_names_the_hashes_of_what_is_there() {
    let text = hostile_page();
    for kind in ["style", "script"] {
        let open = format!("<{kind}>");
        let from = text.find(&open).unwrap() + open.len();
        let body = &text[from..from + text[from..].find(&format!("</{kind}>")).unwrap()];
        let hash = {
            use sha2::Digest as _;
            sha2::Sha256::digest(body.as_bytes())
        };
        // Decoded here by another way than it was encoded: digit by digit.
        let named = text.split(&format!("{kind}-src 'sha256-")).nth(1).unwrap().split('\'').next().unwrap();
        assert_eq!(decode(named), hash.as_slice(), "{kind}");
    }
}

fn decode(base64: &str) -> Vec<u8> {
    let digit = |c: char| match c {
        'A'..='Z' => c as u32 - 65,
        'a'..='z' => c as u32 - 71,
        '0'..='9' => c as u32 + 4,
        '+' => 62,
        _ => 63,
    };
    let bits: Vec<u8> = base64
        .trim_end_matches('=')
        .chars()
        .flat_map(|c| (0..6).rev().map(move |b| (digit(c) >> b & 1) as u8))
        .collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | bit)).collect()
}

#[test]
fn a_page_of_deepseek_geometry_is_below_3_megabytes() {
    let datasets = ["code", "essays", "law", "letters", "maths", "verse"].map(str::to_owned);
    let run = synthetic::run(&Shape::DEEPSEEK, &datasets, |i| format!("a token or a name {i}")).unwrap();
    let text = page(&ReportInput { run: &run, other: None, fidelity: None }).unwrap();
    assert!(text.len() < 3_000_000, "{} bytes", text.len());
}

#[test]
fn figures_are_complete_files_with_names_of_their_own() {
    let datasets: Vec<String> = PAYLOADS.iter().skip(50).map(|&p| p.to_owned()).collect();
    let run = synthetic::run(&SMALL, &datasets, |i| PAYLOADS[i % 60].to_owned()).unwrap();
    let files = figures(&ReportInput { run: &run, other: None, fidelity: None });
    let names: BTreeSet<&str> = files.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names.len(), files.len());
    assert!(files.len() >= 5, "{names:?}");
    for file in &files {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(file.name.chars().all(plain), "{}", file.name);
        assert!(file.svg.starts_with("<svg xmlns=") && file.svg.ends_with("</svg>"), "{}", file.name);
        let mut words = file.svg.split(|c: char| !c.is_ascii_alphanumeric());
        assert_eq!(words.find(|w| matches!(*w, "NaN" | "inf")), None, "{}", file.name);
    }
}

#[test]
fn a_run_without_tokens_still_has_a_page() {
    let none = Shape { samples: 0, ..SMALL };
    let run = synthetic::run(&none, &["empty".to_owned()], |i| format!("{i}")).unwrap();
    let text = page(&ReportInput { run: &run, other: None, fidelity: None }).unwrap();
    assert!(!text.contains("NaN"), "a number that is none");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_string_adds_an_element(word in "\\PC*|[<>&\"'/!a-z \\x00-\\x1f-]{0,40}") {
        let small = Shape { layers: 1, samples: 2, length: 4, ..SMALL };
        let of = |word: &str| {
            let run = synthetic::run(&small, &[format!("a{word}"), format!("b{word}")], |_| word.to_owned()).unwrap();
            tags(&page(&ReportInput { run: &run, other: None, fidelity: None }).unwrap())
        };
        prop_assert_eq!(of(&word), of("plain"));
    }
}

#[cfg(feature = "png")]
#[test]
fn figures_become_pictures_of_twice_their_size() {
    let datasets = ["code", "文学", "law"].map(str::to_owned);
    let run = synthetic::run(&SMALL, &datasets, |i| format!("{i}")).unwrap();
    let renderer = match moetrace_report::PngRenderer::new() {
        Ok(renderer) => renderer,
        Err(moetrace_report::PngError::NoFont) => {
            eprintln!("skipped: this system has no font");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    for file in figures(&ReportInput { run: &run, other: None, fidelity: None }) {
        let png = renderer.render(&file.svg).unwrap();
        let size = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
        let width: f64 =
            file.svg.split(" width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
        assert_eq!((&png[1..4], size(16)), (&b"PNG"[..], (2.0 * width).ceil() as u32), "{}", file.name);
        if let Some(folder) = std::env::var_os("MOETRACE_KEEP_FIGURES") {
            std::fs::write(std::path::Path::new(&folder).join(format!("{}.png", file.name)), &png).unwrap();
        }
    }
    assert!(renderer.render("<svg").is_err());
}
