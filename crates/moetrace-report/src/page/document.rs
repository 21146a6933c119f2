//! The document: what the browser may do, style, contents, sections, data, script.

use std::collections::BTreeMap;

use maud::{DOCTYPE, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use super::sections;
use crate::input::ReportInput;
use crate::section::Section;
use crate::{colour, figure, island};

const STYLE: &str = include_str!("../../assets/page.css");
const SCRIPT: &str = include_str!("../../assets/page.js");

/// The whole page as one HTML text that loads nothing.
///
/// # Errors
/// Those of JSON, which has no number that is not finite; the metrics have none.
pub fn page(input: &ReportInput<'_>) -> Result<String, serde_json::Error> {
    let sections = sections(input);
    let maps: BTreeMap<&str, _> =
        sections.iter().flat_map(Section::heat_maps).map(|map| (map.name, map.island())).collect();
    let data = island::json(&serde_json::json!({ "maps": maps, "cards": super::cards::island(input) }))?;
    let style = style();
    let title = super::overview::title(input);
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy(&style));
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(&style)) }
            }
            body {
                a class="skip" href="#overview" { "to the numbers" }
                header { h1 { (title) } p { (super::overview::subtitle(input)) } }
                div class="columns" {
                    nav aria-label="contents" {
                        ol { @for s in &sections { li { a href={ "#" (s.id) } { (s.title) } } } }
                    }
                    main { @for section in &sections { (section.markup()) } }
                }
                div id="tip" aria-hidden="true" hidden {}
                script type="application/json" id="data" { (PreEscaped(&data)) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    Ok(document.into_string())
}

/// All rules: those of figures, of the page, and what differs on dark ground. Paper is light.
fn style() -> String {
    format!(
        "{}{}{STYLE}@media screen and (prefers-color-scheme:dark){{{}}}",
        figure::RULES,
        colour::rules(false),
        colour::rules(true)
    )
}

/// Nothing may be loaded, sent, or run but this style and this script.
fn policy(style: &str) -> String {
    let hash = |text: &str| island::base64(&Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        hash(style),
        hash(SCRIPT)
    )
}
