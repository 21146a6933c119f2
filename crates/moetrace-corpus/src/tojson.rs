//! The filter `tojson` of chat templates, as the reference implementation has it: Python's `json.dumps` with
//! `ensure_ascii=False`, fields in their order, nothing escaped for HTML.

use std::fmt::Write as _;

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde_json::Value as Json;

/// `value | tojson(indent=2, separators=(",", ":"), sort_keys=true, ensure_ascii=true)`, each of them optional.
#[expect(clippy::needless_pass_by_value, reason = "filters are given their options so")]
pub(crate) fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let refused = |why: &str| Error::new(ErrorKind::InvalidOperation, format!("tojson: {why}"));
    if value.is_undefined() {
        return Err(refused("the value is undefined"));
    }
    let json = serde_json::to_value(value).map_err(|e| refused(&e.to_string()))?;
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (between, behind_key) = match separators.as_deref() {
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
        Some([between, behind_key]) => (between.clone(), behind_key.clone()),
        Some(_) => return Err(refused("separators must be two strings")),
    };
    let form = Form {
        indent: indent.map(|n| n.min(INDENT)),
        between,
        behind_key,
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    let mut out = String::new();
    form.write(&json, 0, &mut out);
    Ok(out)
}

/// A wider indentation is foreign nonsense, and takes memory for each line.
const INDENT: usize = 16;

struct Form {
    indent: Option<usize>,
    between: String,
    behind_key: String,
    sorted: bool,
    ascii: bool,
}

impl Form {
    fn write(&self, value: &Json, depth: usize, out: &mut String) {
        match value {
            Json::String(text) => self.write_string(text, out),
            Json::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
                Some(float) => out.push_str(&python_float(float)),
                None => out.push_str(&number.to_string()),
            },
            Json::Array(items) => self.write_all(['[', ']'], items, depth, out, |item, out| {
                self.write(item, depth + 1, out);
            }),
            Json::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                if self.sorted {
                    fields.sort_by_key(|(name, _)| *name);
                }
                self.write_all(['{', '}'], &fields, depth, out, |(name, value), out| {
                    self.write_string(name, out);
                    out.push_str(&self.behind_key);
                    self.write(value, depth + 1, out);
                });
            }
            Json::Null | Json::Bool(_) => out.push_str(&value.to_string()),
        }
    }

    fn write_all<T>(
        &self,
        [open, close]: [char; 2],
        items: &[T],
        depth: usize,
        out: &mut String,
        mut write: impl FnMut(&T, &mut String),
    ) {
        out.push(open);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push_str(&self.between);
            }
            self.new_line(depth + 1, out);
            write(item, out);
        }
        if !items.is_empty() {
            self.new_line(depth, out);
        }
        out.push(close);
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn write_string(&self, text: &str, out: &mut String) {
        let quoted = Json::from(text).to_string();
        if !self.ascii {
            out.push_str(&quoted);
            return;
        }
        for c in quoted.chars() {
            if c.is_ascii() && c != '\u{7f}' {
                out.push(c);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
}

/// Python switches to exponents at 1e16 and below 1e-4, and writes two digits of them at least.
fn python_float(x: f64) -> String {
    if x == 0.0 || (1e-4..1e16).contains(&x.abs()) {
        return format!("{x:?}");
    }
    let text = format!("{x:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::{Environment, context};

    /// The expected strings are what Python 3.12's `json.dumps` gives for the same values.
    #[test]
    fn json_is_written_as_python_writes_it() {
        let value: Json = serde_json::from_str(
            r#"{"b": "é<&'\u0007", "a": [1, 2.0, 5e-5, 1e16, -1e-7, null, true], "e": [], "o": {}}"#,
        )
        .unwrap();
        let mut environment = Environment::new();
        environment.add_filter("tojson", tojson);
        let written = |options: &str| {
            let source = format!("{{{{ v | tojson{options} }}}}");
            environment.render_str(&source, context! { v => value }).unwrap()
        };
        let plain =
            r#"{"b": "é<&'\u0007", "a": [1, 2.0, 5e-05, 1e+16, -1e-07, null, true], "e": [], "o": {}}"#;
        assert_eq!(written(""), plain);
        let tight = r#"{"a":[1,2.0,5e-05,1e+16,-1e-07,null,true],"b":"\u00e9<&'\u0007","e":[],"o":{}}"#;
        assert_eq!(written("(separators=(',', ':'), sort_keys=true, ensure_ascii=true)"), tight);
        let lines = "{\n  \"b\": \"é<&'\\u0007\",\n  \"a\": [\n    1,\n    2.0,\n    5e-05,\n    1e+16,\n    \
                     -1e-07,\n    null,\n    true\n  ],\n  \"e\": [],\n  \"o\": {}\n}";
        assert_eq!(written("(indent=2)"), lines);
        assert!(environment.render_str("{{ nothing | tojson }}", ()).is_err());
    }
}
