//! Buffers that nobody filled: every row is valid, and all are the same.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, PrimitiveArray, UInt32Array};
use arrow::array::{ArrowPrimitiveType, Float32Array};
use arrow::datatypes::{DataType, Float32Type, UInt8Type};
use moetrace_run::{ContentSettings, Fault, FaultKind};

use super::Run;
use crate::support::content;

/// All rows have the value of the first.
fn constant(column: &ArrayRef) -> ArrayRef {
    fn repeated<T: ArrowPrimitiveType>(values: &ArrayRef, width: usize) -> ArrayRef {
        let values = values.as_primitive::<T>().values();
        Arc::new(PrimitiveArray::<T>::from_iter_values(values[..width].repeat(values.len() / width)))
    }
    let DataType::FixedSizeList(item, width) = column.data_type() else {
        return repeated::<Float32Type>(column, 1);
    };
    let list = column.as_fixed_size_list();
    let values = match item.data_type() {
        DataType::UInt8 => repeated::<UInt8Type>(list.values(), *width as usize),
        _ => repeated::<Float32Type>(list.values(), *width as usize),
    };
    Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *width, values, None).unwrap())
}

/// Faults of a kind in runs with files of 81 and 120 rows, and with files of at most 40.
fn both(kind: FaultKind, change: impl Fn(&Run, usize)) -> [Fault; 2] {
    let large = Run::with(ContentSettings { shard_tokens: 200, ..content() }, None);
    change(&large, 0);
    let small = Run::new();
    (0..small.plan.shards.len()).for_each(|shard| change(&small, shard));
    [large.fault_of(kind), small.fault_of(kind)]
}

#[test]
fn layers_whose_columns_were_never_filled_are_found_in_one_file_and_over_many_small_ones() {
    let zeros = |column: &ArrayRef| Arc::new(Float32Array::from(vec![0.0; column.len()])) as ArrayRef;
    for (column, kind) in [
        ("experts_02", FaultKind::ConstantExperts),
        ("margin_02", FaultKind::ZeroMargins),
        ("gate_entropy_02", FaultKind::ZeroEntropy),
    ] {
        let change = |array: &ArrayRef| if column == "experts_02" { first_two(array) } else { zeros(array) };
        let [large, small] = both(kind, |run, shard| {
            run.rewrite("data", shard, |name, array| (name == column).then(|| change(array)));
        });
        assert_eq!((large.kind, large.count, large.first.layer), (kind, 1, Some(2)), "{large:?}");
        assert!(
            large.first.file.starts_with("data/") && large.what.ends_with("in each of 81 rows"),
            "{large:?}"
        );
        assert_eq!((small.kind, small.count, small.first.layer), (kind, 1, Some(2)), "{small:?}");
        assert!(small.what.ends_with("in each of 201 rows"), "{small:?}");
    }
}

/// Experts 0 and 1 in every row, as of a buffer that counts up.
fn first_two(column: &ArrayRef) -> ArrayRef {
    let DataType::FixedSizeList(item, width) = column.data_type() else { unreachable!() };
    let values = PrimitiveArray::<UInt8Type>::from_iter_values([0, 1].repeat(column.len()));
    Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *width, Arc::new(values), None).unwrap())
}

#[test]
fn constant_weights_and_token_ids_are_found() {
    let run = Run::with(ContentSettings { shard_tokens: 200, ..content() }, None);
    run.rewrite("data", 1, |name, array| (name == "weights_01").then(|| constant(array)));
    let fault = run.fault();
    assert_eq!((fault.kind, fault.first.layer), (FaultKind::ConstantWeights, Some(1)), "{fault:?}");
    run.rewrite("data", 1, |name, array| {
        (name == "token_id").then(|| Arc::new(UInt32Array::from(vec![3; array.len()])) as ArrayRef)
    });
    let fault = run.fault_of(FaultKind::ConstantTokens);
    assert_eq!(fault.what, "the token id is 3 in each of 120 rows");
}

#[test]
fn a_layer_that_holds_the_choices_of_the_one_before_it_is_found() {
    let run = Run::with(ContentSettings { shard_tokens: 200, ..content() }, None);
    let first = std::cell::RefCell::new(None);
    run.rewrite("data", 0, |name, array| {
        if name == "experts_01" {
            first.replace(Some(Arc::clone(array)));
        }
        (name == "experts_02").then(|| first.borrow().clone().unwrap())
    });
    let fault = run.fault();
    assert_eq!((fault.kind, fault.first.layer), (FaultKind::RepeatedLayer, Some(2)), "{fault:?}");
}

/// Rows 20 to 19 + `rows` of a file of 120, filled with what row 20 holds, or with zeros.
fn filled(column: &ArrayRef, rows: usize, zeros: bool) -> ArrayRef {
    let one = if zeros { Arc::new(Float32Array::from(vec![0.0])) as ArrayRef } else { column.slice(20, 1) };
    let pieces: Vec<ArrayRef> = std::iter::once(column.slice(0, 20))
        .chain(std::iter::repeat_n(one, rows))
        .chain([column.slice(20 + rows, column.len() - 20 - rows)])
        .collect();
    let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
    arrow::compute::concat(&pieces).unwrap()
}

#[test]
fn a_pass_that_left_a_buffer_unfilled_is_found() {
    for (column, kind, zeros) in [
        ("experts_02", FaultKind::ConstantExperts, false),
        ("weights_02", FaultKind::ConstantWeights, false),
        ("margin_02", FaultKind::ZeroMargins, true),
    ] {
        let run = Run::with(ContentSettings { shard_tokens: 200, ..content() }, None);
        run.rewrite("data", 1, |name, array| (name == column).then(|| filled(array, 60, zeros)));
        let fault = run.fault();
        let row = if zeros { 20 } else { 21 };
        assert_eq!((fault.kind, fault.count, fault.first.row), (kind, 1, Some(row)), "{fault:?}");
        assert_eq!(fault.first.layer, Some(2));
        let rows = if zeros { 60 } else { 59 };
        assert!(fault.what.ends_with(&format!(" in {rows} rows on end, from here on")), "{fault:?}");
    }
    // An entropy of 0 where a second expert has a weight is no accident in any row.
    let run = Run::with(ContentSettings { shard_tokens: 200, ..content() }, None);
    run.rewrite("data", 1, |name, array| (name == "gate_entropy_02").then(|| filled(array, 60, true)));
    let (entropy, stretch) = (run.fault_of(FaultKind::GateEntropy), run.fault_of(FaultKind::ZeroEntropy));
    assert_eq!((entropy.count, entropy.first.row), (60, Some(20)), "{entropy:?}");
    assert_eq!((stretch.count, stretch.first.row), (1, Some(20)), "{stretch:?}");
}

#[test]
fn rows_alike_are_no_fault_where_they_are_few_or_of_one_token() {
    let run = Run::with(ContentSettings { shard_tokens: 200, ..content() }, None);
    // Its numbers are of the rows as they were.
    std::fs::remove_file(run.path("summary.json")).unwrap();
    run.rewrite("data", 1, |name, array| (name == "experts_02").then(|| filled(array, 32, false)));
    assert_eq!(run.verify().faults, []);
    // A text that says one thing over and over: each token is routed as the one before it, in all layers.
    run.rewrite("data", 1, |name, array| {
        let is_routing = name != "sample_id" && name != "position" && name != "dataset";
        is_routing.then(|| filled(array, 60, false))
    });
    let faults = run.verify().faults;
    assert!(faults.iter().all(|fault| fault.kind == FaultKind::Tokens), "{faults:#?}");
    assert!(!faults.is_empty(), "the hash of the tokens");
}

#[test]
fn the_choices_of_the_layer_before_in_one_pass_are_found() {
    let run = Run::with(ContentSettings { shard_tokens: 200, ..content() }, None);
    let first = std::cell::RefCell::new(None);
    run.rewrite("data", 1, |name, array| {
        if name == "experts_01" {
            first.replace(Some(Arc::clone(array)));
        }
        (name == "experts_02").then(|| {
            let before = first.borrow();
            let pieces = [array.slice(0, 40), before.as_ref().unwrap().slice(40, 50), array.slice(90, 30)];
            arrow::compute::concat(&pieces.each_ref().map(AsRef::as_ref)).unwrap()
        })
    });
    let fault = run.fault();
    assert_eq!((fault.kind, fault.count, fault.first.row), (FaultKind::RepeatedLayer, 1, Some(40)));
    assert_eq!(fault.what, "the choices of the layer before in 50 rows on end, from here on");
}
