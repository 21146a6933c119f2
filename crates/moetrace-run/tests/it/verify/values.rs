//! Values that no router, no tokenizer and no plan can have produced, under hashes that are right.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, PrimitiveArray, StringArray};
use arrow::array::{ArrowPrimitiveType, Float32Array};
use arrow::datatypes::{Float32Type, UInt8Type, UInt16Type, UInt32Type};
use moetrace_run::FaultKind;
use moetrace_trace::read_samples;

use super::{Run, rewrite};

/// A column of numbers with some changed.
fn numbers<T: ArrowPrimitiveType>(column: &ArrayRef, changes: &[(usize, T::Native)]) -> ArrayRef {
    let mut values = column.as_primitive::<T>().values().to_vec();
    for &(at, value) in changes {
        values[at] = value;
    }
    Arc::new(PrimitiveArray::<T>::from_iter_values(values))
}

/// A column of pairs with some values changed; `at` counts values.
fn pairs<T: ArrowPrimitiveType>(column: &ArrayRef, changes: &[(usize, T::Native)]) -> ArrayRef {
    let list: &FixedSizeListArray = column.as_fixed_size_list();
    let values = numbers::<T>(list.values(), changes);
    let arrow::datatypes::DataType::FixedSizeList(item, width) = column.data_type() else { unreachable!() };
    Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *width, values, None).unwrap())
}

fn cell(
    f: impl Fn(&ArrayRef) -> ArrayRef,
    column: &'static str,
) -> impl Fn(&str, &ArrayRef) -> Option<ArrayRef> {
    move |name, array| (name == column).then(|| f(array))
}

/// Changes one column of a shard's tokens table and gives the fault that is found.
fn damaged(
    column: &'static str,
    kind: FaultKind,
    change: impl Fn(&ArrayRef) -> ArrayRef,
) -> (u64, String, String) {
    let run = Run::new();
    run.rewrite("data", 1, cell(change, column));
    let fault = run.fault();
    assert_eq!(fault.kind, kind, "{fault:?}");
    let place = fault.first.to_string();
    let file = run.name("data", 1).display().to_string();
    (fault.count, place.replace(&file, "FILE"), fault.what)
}

#[test]
fn experts_that_cannot_be_are_found_with_their_row_and_layer() {
    let run = Run::new();
    let samples = read_samples(&run.path(run.name("samples", 1))).unwrap();
    let (first, length) = (samples[0].sample_id, samples[0].tokens);
    assert!(length > 3, "row 3 is of the first text");
    let found =
        damaged("experts_02", FaultKind::ExpertRange, |ids| pairs::<UInt8Type>(ids, &[(7, 8), (9, 200)]));
    let place = format!("FILE, row 3 (alpha, sample {first}, position 3, layer 2)");
    assert_eq!(found, (2, place.clone(), "expert 8, expected 0 to 7".into()));
    let (count, at, what) = damaged("experts_02", FaultKind::ExpertTwice, |ids| {
        let same = ids.as_fixed_size_list().values().as_primitive::<UInt8Type>().value(6);
        pairs::<UInt8Type>(ids, &[(7, same)])
    });
    assert_eq!((count, at), (1, place));
    assert!(what.ends_with("is chosen twice"), "{what}");
}

#[test]
fn weights_that_cannot_be_are_found() {
    let found = |changes: &'static [(usize, f32)], kind| {
        let (count, _, what) =
            damaged("weights_01", kind, move |weights| pairs::<Float32Type>(weights, changes));
        (count, what)
    };
    for (bad, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (-0.25, "-0.25")] {
        let expected = format!("a weight is {shown}, expected a number of at least 0");
        let changes: &'static [(usize, f32)] = Box::leak(Box::new([(4, bad)]));
        assert_eq!(found(changes, FaultKind::Weight), (1, expected));
    }
    let zero = "all 2 weights are 0".to_owned();
    assert_eq!(found(&[(4, 0.0), (5, 0.0)], FaultKind::ZeroWeights), (1, zero));
    assert_eq!(found(&[(4, 0.25), (5, 0.5)], FaultKind::WeightOrder), (1, "weight 0.5 follows 0.25".into()));
    // The engine of these tests chooses 2 of 8.
    let over = "the weights sum up to 1.5, expected 0.24804688 to 1".to_owned();
    assert_eq!(found(&[(4, 0.75), (5, 0.75)], FaultKind::WeightSum), (1, over));
    let under = "the weights sum up to 0.125, expected 0.24804688 to 1".to_owned();
    assert_eq!(found(&[(4, 0.0625), (5, 0.0625)], FaultKind::WeightSum), (1, under));
    let long = "weight 0.3001 has more than ten bits of mantissa".to_owned();
    assert_eq!(found(&[(4, 0.5), (5, 0.3001)], FaultKind::Rounding), (1, long));
}

#[test]
fn weights_of_a_model_that_renormalises_sum_up_to_1() {
    let run = Run::new();
    // The engine of these tests has weights that sum up to 0.9.
    super::edit(&run.folder.manifest_path(), |manifest| manifest["model"]["renormalised"] = true.into());
    let fault = run.fault();
    assert_eq!((fault.kind, fault.count), (FaultKind::WeightSum, 2 * run.plan.tokens()));
    assert!(fault.what.ends_with(", expected 1"), "{}", fault.what);
}

#[test]
fn margins_and_entropies_that_cannot_be_are_found() {
    for (column, kind, bad) in [
        ("margin_01", FaultKind::Margin, [f32::NAN, -0.1, 1.1]),
        ("gate_entropy_01", FaultKind::GateEntropy, [f32::INFINITY, -0.1, 3.01]),
    ] {
        let changes: Vec<(usize, f32)> = bad.into_iter().enumerate().collect();
        let (count, place, what) = damaged(column, kind, |values| numbers::<Float32Type>(values, &changes));
        assert_eq!(count, 3, "{column}");
        assert!(place.contains("row 0") && place.contains("layer 1"), "{place}");
        assert!(what.contains("expected 0 to "), "{what}");
    }
}

#[test]
fn rows_that_are_not_those_of_the_samples_are_found() {
    let (count, _, what) =
        damaged("position", FaultKind::Position, |values| numbers::<UInt16Type>(values, &[(2, 3), (3, 4)]));
    assert_eq!((count, what.as_str()), (2, "position 3, expected 2"));
    let (count, place, what) =
        damaged("sample_id", FaultKind::SampleOrder, |values| numbers::<UInt32Type>(values, &[(2, 77)]));
    assert_eq!(count, 1);
    assert!(
        place.contains("row 2") && what.starts_with("a row of sample 77, expected sample"),
        "{place} {what}"
    );
    let (count, place, what) = damaged("token_id", FaultKind::Tokens, |values| {
        let other = values.as_primitive::<UInt32Type>().value(1);
        numbers::<UInt32Type>(values, &[(0, other)])
    });
    assert_eq!((count, place.as_str()), (1, "FILE"));
    assert!(what.contains("the model was given"), "{what}");
}

#[test]
fn a_row_less_and_a_row_more_are_found() {
    for (more, expected) in [(false, "fewer"), (true, "more")] {
        let run = Run::new();
        let rows = run.plan.shards[1].tokens as usize;
        run.rewrite("data", 1, |_, column| {
            let all: ArrayRef = Arc::clone(column);
            let last = column.slice(rows - 1, 1);
            let parts: Vec<&dyn Array> = if more { vec![&all, &last] } else { vec![&all] };
            let joined = arrow::compute::concat(&parts).unwrap();
            Some(if more { joined } else { joined.slice(0, rows - 1) })
        });
        let fault = run.fault_of(FaultKind::RowCount);
        let found = if more { rows + 1 } else { rows - 1 };
        assert_eq!(
            fault.what,
            format!("it holds {found} rows, its samples table lists {rows}"),
            "{expected}"
        );
    }
}

#[test]
fn samples_that_are_not_those_of_the_plan_are_found() {
    let change = |column: &'static str, f: &dyn Fn(&ArrayRef) -> ArrayRef| {
        let run = Run::new();
        run.rewrite("samples", 1, |name, array| (name == column).then(|| f(array)));
        run
    };
    let run = change("tokens", &|values| numbers::<UInt32Type>(values, &[(0, 0)]));
    let fault = run.fault_of(FaultKind::Samples);
    assert!(fault.what.contains("tokens, the manifest says"), "{}", fault.what);
    assert_eq!(fault.count, 2, "the sum, and a text without a token");

    let run = change("truncated", &|values| Arc::new(BooleanArray::from(vec![true; values.len()])));
    let fault = run.fault();
    let texts = run.plan.shards[1].samples as u64;
    assert_eq!((fault.kind, fault.count), (FaultKind::Samples, texts + 1), "each text, and their number");
    assert!(fault.what.contains("marked as truncated at"), "{}", fault.what);

    let run = change("text_hash", &|values| Arc::new(StringArray::from(vec!["x"; values.len()])));
    assert_eq!(run.fault().kind, FaultKind::TextHash);

    // The first text of the shard before.
    let run = Run::new();
    let taken = read_samples(&run.path(run.name("samples", 0))).unwrap()[0].sample_id.0;
    run.rewrite("samples", 1, cell(|ids| numbers::<UInt32Type>(ids, &[(0, taken)]), "sample_id"));
    let fault = run.fault_of(FaultKind::RepeatedSample);
    assert_eq!((fault.count, fault.first.sample), (1, Some(taken)));
}

#[test]
fn a_text_said_to_begin_with_bos_begins_with_it() {
    let run = Run::new();
    let begin = |id: u32| {
        super::edit(&run.folder.manifest_path(), |manifest| {
            manifest["tokenizer"] = serde_json::json!({ "hash": "t", "bos_token_id": id });
        });
    };
    // The tokens of these texts are their row times 100, and on from there.
    begin(99);
    assert_eq!(run.verify().faults, []);
    begin(100);
    let fault = run.fault();
    assert_eq!((fault.kind, fault.count), (FaultKind::Samples, 2), "the second text of each data set");
    assert_eq!(fault.what, "the first token is 100, the text is said not to begin with BOS, which is 100");
    begin(99);
    run.rewrite("samples", 1, |name, array| {
        let all = || Arc::new(BooleanArray::from(vec![true; array.len()])) as ArrayRef;
        (name == "begins_with_bos").then(all)
    });
    let fault = run.fault();
    assert_eq!((fault.kind, fault.count), (FaultKind::Samples, run.plan.shards[1].samples as u64));
    assert!(fault.what.ends_with("the text is said to begin with BOS, which is 99"), "{}", fault.what);
}

#[test]
fn columns_that_are_missing_empty_or_too_many_are_found_once_and_the_others_are_checked() {
    for (column, kind) in [
        ("experts_02", FaultKind::MissingLayer),
        ("weights_02", FaultKind::Column),
        ("margin_02", FaultKind::Column),
        ("token_id", FaultKind::Column),
        ("position", FaultKind::Column),
    ] {
        let run = Run::new();
        rewrite(
            &run.path(run.name("data", 1)),
            |name| name != column,
            cell(|weights| pairs::<Float32Type>(weights, &[(0, f32::NAN)]), "weights_01"),
        );
        run.recommit("data", 1);
        let fault = run.fault_of(kind);
        assert_eq!(fault.count, 1, "{column}: {fault:?}");
        assert!(fault.what.contains(column) && fault.what.contains("missing"), "{fault:?}");
        assert_eq!(run.fault_of(FaultKind::Weight).count, 1, "{column}");
    }
    let empty = |values: &ArrayRef| {
        let values = values.as_primitive::<Float32Type>().iter().enumerate();
        Arc::new(values.map(|(row, value)| value.filter(|_| row != 5)).collect::<Float32Array>()) as ArrayRef
    };
    let (count, _, what) = damaged("margin_01", FaultKind::EmptyCell, empty);
    assert_eq!(
        (count, what.as_str()),
        (1, "column `margin_01` is empty at or after row 0, expected a value")
    );
    let run = Run::new();
    super::edit(&run.folder.manifest_path(), |manifest| {
        manifest["identity"]["no_tokens"] = "true".into();
    });
    // The settings are part of the plan's hash: they cannot be changed alone.
    assert!(moetrace_run::verify(&run.folder).is_err());
}
