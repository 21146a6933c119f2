//! What is written is what is read, for every schema and however it was cut and encoded.

use moetrace_routing::{MoeOrdinal, Planes, TokenId};
use moetrace_trace::{ShardReader, TraceColumns, TraceSettings};
use proptest::prelude::*;

use crate::fixture::{Layer, Memory, Recording, all_columns, geometry};

const EVERYTHING: Planes = Planes { logits: true, shared_gate: true, hidden: true, nll: true };

/// NaN equals NaN: losses compare by their bits.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() }).collect()
}

/// What playback of `recording` should be heard as, given what was recorded and what is wanted.
fn expected(recording: &Recording, columns: TraceColumns, wants: Planes) -> Recording {
    let mut expected = recording.clone();
    let gate = columns.shared_gate && wants.shared_gate && recording.geometry.has_shared_gate();
    expected.hidden_rows.clear();
    for layer in &mut expected.layers {
        let Layer { weights, margins, gate_entropy, logits, shared_gate, hidden, .. } = layer;
        hidden.clear();
        for (is_there, plane) in
            [(columns.weights, weights), (columns.margins, margins), (columns.gate_entropy, gate_entropy)]
        {
            if !is_there {
                plane.clear();
            }
        }
        if !(columns.logits && wants.logits) {
            logits.clear();
        }
        if !gate {
            shared_gate.clear();
        }
    }
    if !columns.token_ids {
        expected.token_ids.fill(TokenId(0));
    }
    if !(columns.nll && wants.nll) {
        expected.nll.clear();
    }
    expected
}

fn check(recording: &Recording, settings: &TraceSettings, wants: Planes, tokens_per_pass: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (data, samples) = recording.write_files(&dir, settings);
    let reader = ShardReader::open(&data, &samples).unwrap();
    assert_eq!(reader.geometry(), &recording.geometry);
    assert_eq!(reader.rows(), recording.token_ids.len() as u64);
    assert_eq!(&**reader.dataset(), "letters");
    let mut memory = Memory::new(&recording.geometry, wants);
    reader.play(tokens_per_pass, &mut memory).unwrap();
    let mut expected = expected(recording, settings.columns, wants);
    assert_eq!(bits(&memory.heard.nll), bits(&expected.nll));
    (memory.heard.nll, expected.nll) = (vec![], vec![]);
    assert_eq!(memory.heard, expected);
}

/// What is left when only experts are asked for is what a file without the other columns gives.
#[test]
fn experts_alone_are_read_with_samples_and_positions_and_nothing_else() {
    let recording = Recording::new(&geometry(64, 6, 3), &[7, 1, 30], 5);
    let dir = tempfile::tempdir().unwrap();
    let settings = TraceSettings { columns: all_columns(), ..TraceSettings::default() };
    let (data, samples) = recording.write_files(&dir, &settings);
    let mut memory = Memory::new(&recording.geometry, EVERYTHING);
    ShardReader::open(&data, &samples).unwrap().experts_only().play(20, &mut memory).unwrap();
    let nothing = TraceColumns {
        weights: false,
        margins: false,
        gate_entropy: false,
        token_ids: false,
        ..TraceColumns::default()
    };
    assert_eq!(memory.heard, expected(&recording, nothing, EVERYTHING));
    assert!(!memory.heard.layers[0].experts.is_empty());
}

fn columns() -> impl Strategy<Value = TraceColumns> {
    prop::array::uniform9(any::<bool>()).prop_map(
        |[weights, margins, gate_entropy, token_ids, text, logits, shared_gate, nll, hidden]| TraceColumns {
            weights,
            margins,
            gate_entropy,
            token_ids,
            text,
            logits,
            shared_gate,
            nll,
            hidden,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_schema_reads_back_what_was_written(
        // Above 256 experts ids take two bytes; K = E is every expert chosen.
        (experts, chosen) in prop_oneof![Just((64, 6)), Just((4, 4)), Just((1, 1)), Just((300, 3)), Just((256, 2))],
        layers in 1u16..4,
        has_gate in any::<bool>(),
        lengths in prop::collection::vec(prop_oneof![Just(1usize), 1usize..40], 0..12),
        columns in columns(),
        wants in prop::bool::ANY.prop_map(|all| if all { EVERYTHING } else { Planes::default() }),
        tokens_per_pass in 0usize..120,
        seed in any::<u64>(),
    ) {
        let geometry = geometry(experts, chosen, layers);
        let geometry = if has_gate { geometry.with_shared_gate() } else { geometry };
        let recording = Recording::new(&geometry, &lengths, seed);
        check(&recording, &TraceSettings { columns, ..TraceSettings::default() }, wants, tokens_per_pass);
    }

    #[test]
    fn passes_asked_for_one_by_one_are_the_rows_that_were_written_also_behind_some_left_out(
        lengths in prop::collection::vec(1usize..40, 1..12),
        steps in prop::collection::vec((any::<bool>(), 1usize..4), 12),
        seed in any::<u64>(),
    ) {
        let recording = Recording::new(&geometry(64, 6, 2), &lengths, seed);
        let dir = tempfile::tempdir().unwrap();
        let (data, samples) = recording.write_files(&dir, &TraceSettings::default());
        let mut playback = ShardReader::open(&data, &samples).unwrap().playback(EVERYTHING).unwrap();
        let mut row = 0;
        for (skipped, samples) in steps {
            let rows: usize = playback.remaining().iter().take(samples).map(|s| s.tokens as usize).sum();
            if skipped {
                playback.skip(samples).unwrap();
            } else {
                let mut pass = playback.pass(samples).unwrap();
                prop_assert_eq!(pass.batch().token_ids(), &recording.token_ids[row..row + rows]);
                // Layers may be asked for in any order, and twice.
                for ordinal in [1, 0, 1] {
                    let view = pass.layer(MoeOrdinal(ordinal)).unwrap();
                    let layer = &recording.layers[usize::from(ordinal)];
                    prop_assert_eq!(view.experts(), &layer.experts[row * 6..(row + rows) * 6]);
                    prop_assert_eq!(view.margins(), Some(&layer.margins[row..row + rows]));
                }
                prop_assert!(pass.layer(MoeOrdinal(2)).is_err());
            }
            row += rows;
        }
        prop_assert_eq!(playback.reader().rows() as usize, recording.token_ids.len());
        prop_assert_eq!(playback.remaining().is_empty(), row == recording.token_ids.len());
    }

    #[test]
    fn bytes_depend_neither_on_passes_nor_on_threads(
        lengths in prop::collection::vec(1usize..60, 1..30),
        samples_per_pass in 1usize..8,
        threads in 2usize..5,
        seed in any::<u64>(),
    ) {
        let recording = Recording::new(&geometry(64, 6, 3).with_shared_gate(), &lengths, seed);
        let settings = |threads| TraceSettings { columns: all_columns(), threads, ..TraceSettings::default() };
        let one = recording.write(&settings(1), lengths.len());
        let other = recording.write(&settings(threads), samples_per_pass);
        prop_assert!(one.data == other.data && one.hidden == other.hidden);
        prop_assert_eq!((one.rows, one.hidden_rows), (other.rows, other.hidden_rows));
    }
}
