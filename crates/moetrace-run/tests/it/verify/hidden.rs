//! Hidden states that no router can have been given, under hashes that are right.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, PrimitiveArray};
use arrow::array::{ArrowPrimitiveType, Float32Array};
use arrow::datatypes::{DataType, Float32Type, UInt16Type, UInt32Type};
use moetrace_run::{ContentSettings, Fault, FaultKind, RunFolder, verify};

use super::{Run, rewrite};
use crate::support::{Arithmetic, Call, HIDDEN, content, plan};

/// Three tokens of a shard, two layers each.
const ROWS: usize = 6;

/// Changes one column of a shard's hidden table and gives the fault that is found.
fn damaged(column: &'static str, change: impl Fn(&ArrayRef) -> ArrayRef) -> Fault {
    let run = Run::new();
    run.rewrite("hidden", 1, |name, array| (name == column).then(|| change(array)));
    run.fault()
}

fn with<T: ArrowPrimitiveType>(column: &ArrayRef, at: usize, value: T::Native) -> ArrayRef {
    let mut values = column.as_primitive::<T>().values().to_vec();
    values[at] = value;
    Arc::new(PrimitiveArray::<T>::from_iter_values(values))
}

fn values(column: &ArrayRef, change: impl Fn(&mut [f32])) -> ArrayRef {
    let DataType::FixedSizeList(item, width) = column.data_type() else { unreachable!() };
    let mut values = column.as_fixed_size_list().values().as_primitive::<Float32Type>().values().to_vec();
    change(&mut values);
    let values = Arc::new(Float32Array::from(values));
    Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *width, values, None).unwrap())
}

#[test]
fn values_that_are_no_router_s_input_are_found() {
    let nan = damaged("hidden", |column| values(column, |all| all[2 * HIDDEN + 1] = f32::NAN));
    assert_eq!((nan.kind, nan.count, nan.first.row), (FaultKind::Hidden, 1, Some(2)), "{nan:?}");
    assert_eq!((nan.what.as_str(), nan.first.layer), ("a hidden state is NaN", Some(1)));
    let zero = damaged("hidden", |column| values(column, |all| all[HIDDEN..2 * HIDDEN].fill(0.0)));
    assert_eq!((zero.kind, zero.count, zero.first.row), (FaultKind::Hidden, 1, Some(1)), "{zero:?}");
    assert_eq!(zero.what, format!("all {HIDDEN} hidden states are 0"));
}

#[test]
fn a_buffer_that_says_the_same_of_every_token_is_found() {
    let run = Run::with(ContentSettings { shard_tokens: 200, hidden_rows: 8, ..content() }, None);
    run.rewrite("hidden", 1, |name, array| (name == "hidden").then(|| values(array, |all| all.fill(0.5))));
    let fault = run.fault();
    assert_eq!((fault.kind, fault.count, fault.first.layer), (FaultKind::Hidden, 2, Some(1)), "{fault:?}");
    assert_eq!(fault.what, "the same numbers for each of 8 tokens");
}

#[test]
fn rows_of_other_tokens_and_layers_are_found() {
    let text = damaged("sample_id", |ids| with::<UInt32Type>(ids, 0, 999));
    assert_eq!((text.kind, text.first.row), (FaultKind::Hidden, Some(0)));
    assert_eq!(text.what, "its text is not in the samples table");
    let position = damaged("position", |at| with::<UInt16Type>(at, 0, 9_999));
    assert!(position.what.starts_with("position 9999 of a text of "), "{position:?}");
    let layer = damaged("layer", |layers| with::<UInt16Type>(layers, 3, 77));
    assert_eq!((layer.kind, layer.count, layer.first.row), (FaultKind::Hidden, 1, Some(3)), "{layer:?}");
    assert_eq!(layer.what, "a row of layer 77, expected layer 2");
    // The first token's rows, said to be a second time those of the second.
    let run = Run::new();
    run.rewrite("hidden", 1, |name, array| {
        let twice = || arrow::compute::concat(&[&array.slice(0, 2), &array.slice(0, 4)]).unwrap();
        (name != "hidden").then(twice)
    });
    let fault = run.fault();
    assert_eq!((fault.kind, fault.first.row), (FaultKind::Hidden, Some(2)), "{fault:?}");
    assert!(fault.what.ends_with("expected a token behind that"), "{}", fault.what);
}

#[test]
fn fewer_rows_more_rows_and_missing_columns_are_found() {
    for (times, rows) in [(1, 4), (1, 0), (2, ROWS)] {
        let run = Run::new();
        run.rewrite("hidden", 1, |_, array| {
            let piece = array.slice(0, rows);
            Some(arrow::compute::concat(&vec![piece.as_ref(); times]).unwrap())
        });
        let fault = run.fault_of(FaultKind::RowCount);
        assert_eq!(fault.first.file, run.name("hidden", 1));
        assert_eq!(fault.what, format!("it holds {} rows, the manifest says {ROWS}", times * rows));
    }
    for column in ["hidden", "layer", "sample_id", "position"] {
        let run = Run::new();
        rewrite(&run.path(run.name("hidden", 1)), |name| name != column, |_, _| None);
        run.recommit("hidden", 1);
        let fault = run.fault();
        assert_eq!((fault.kind, fault.first.file), (FaultKind::Column, run.name("hidden", 1)));
        assert_eq!(fault.what, format!("column `{column}` is missing, expected present"));
    }
}

#[test]
fn a_record_that_promises_other_rows_is_refused() {
    let run = Run::new();
    run.edit_record(1, |record| record["files"][2]["rows"] = 5.into());
    let fault = run.fault();
    assert_eq!((fault.kind, fault.what.as_str()), (FaultKind::Record, "its rows of hidden is 5, expected 6"));
}

#[test]
fn a_model_that_gates_its_shared_expert_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    let mut content = content();
    content.columns.shared_gate = false;
    let mut plan = plan(dir.path(), content);
    plan.geometry = plan.geometry.with_shared_gate();
    let mut engine = Arithmetic::new();
    engine.geometry = plan.geometry.clone();
    let out = dir.path().join("run");
    Call { engine, ..Call::default() }.collect(&out, &plan).unwrap();
    assert_eq!(verify(&RunFolder::new(out)).unwrap().faults, []);
}
