//! What `SGLang` returns with `return_routed_experts`: ids of `[tokens, layers, K]`, int32, little-endian, in base64.
//!
//! It has a row for every layer of the model, also for those without a router: -1 stands there, as in SGLang-JAX.

use std::path::PathBuf;

use serde_json::json;

use super::jsonl::Lines;
use super::{Text, Writer};
use crate::ExchangeError;

pub(super) struct Sglang {
    lines: Lines,
}

impl Sglang {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { lines: Lines::new(root) }
    }
}

impl Writer for Sglang {
    fn text(&mut self, text: &Text<'_>) -> Result<(), ExchangeError> {
        let (n, k) = (text.batch.len(), text.chosen);
        // Layers behind the last router are not known to a trace.
        let depth = text.layers.last().map_or(0, |layer| usize::from(layer.number) + 1);
        let mut ids = vec![-1i32; n * depth * k];
        for layer in text.layers {
            for (row, experts) in layer.experts.chunks_exact(k).enumerate() {
                let at = (row * depth + usize::from(layer.number)) * k;
                for (slot, id) in ids[at..at + k].iter_mut().zip(experts) {
                    *slot = i32::from(id.0);
                }
            }
        }
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let mut line = json!({
            "dataset": text.dataset,
            "sample_id": text.sample.sample_id.0,
            "routed_experts_shape": [n, depth, k],
            "meta_info": {
                "id": format!("{}-{}", text.dataset, text.sample.sample_id),
                "prompt_tokens": n,
                "routed_experts": base64(&bytes),
            },
        });
        if let Some(ids) = text.token_ids() {
            line["input_ids"] = ids.collect();
        }
        self.lines.write(text.dataset, &line)
    }

    fn finish(mut self: Box<Self>) -> Result<(), ExchangeError> {
        self.lines.close()
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let all = three.iter().fold(0u32, |all, &byte| all << 8 | u32::from(byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let index = (all >> (18 - 6 * digit)) & 63;
            text.push(if digit <= three.len() { char::from(DIGITS[index as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        // Section 10 of the RFC.
        for (bytes, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
    }
}
