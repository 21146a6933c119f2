//! What a writer refuses, and how it ends when something fails.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;

use moetrace_routing::{
    ExpertId, HiddenRows, RoutingGeometry, RoutingPlanes, RoutingSink, RoutingView, SampleId, SinkError,
    Span, TokenBatch, TokenId,
};
use moetrace_trace::{
    MAX_SAMPLE_TOKENS, ShardWriter, TraceColumns, TraceError, TraceSettings, write_samples, write_vocabulary,
};

use crate::fixture::{Recording, geometry, trace_error};

fn writer(columns: TraceColumns) -> ShardWriter<Vec<u8>> {
    let settings = TraceSettings { columns, ..TraceSettings::default() };
    ShardWriter::new(&geometry(4, 2, 2), &settings, &"letters".into(), Vec::new(), None).unwrap()
}

fn batch(dataset: &str, positions: Vec<u32>) -> TokenBatch {
    let len = positions.len();
    let span = Span {
        sample: SampleId(7),
        dataset: dataset.into(),
        label: None,
        start: 0,
        len,
        begins_with_bos: false,
    };
    TokenBatch::new(vec![TokenId(0); len], positions, vec![span]).unwrap()
}

fn begin(batch: &TokenBatch) -> Result<(), TraceError> {
    writer(TraceColumns::default()).begin(batch).map_err(trace_error)
}

#[test]
fn positions_and_samples_beyond_16_bits_are_refused_by_name() {
    assert!(begin(&batch("letters", vec![65_535])).is_ok());
    let error = begin(&batch("letters", vec![0, 65_536])).unwrap_err();
    assert!(matches!(error, TraceError::Position { sample: SampleId(7), found: 65_536, most: 65_535 }));
    assert!(begin(&batch("letters", vec![0; MAX_SAMPLE_TOKENS])).is_ok());
    let error = begin(&batch("letters", vec![0; MAX_SAMPLE_TOKENS + 1])).unwrap_err();
    assert!(matches!(error, TraceError::SampleLength { sample: SampleId(7), found: 65_536, most: 65_535 }));
}

#[test]
fn a_sample_of_another_data_set_is_refused() {
    let error = begin(&batch("digits", vec![0])).unwrap_err();
    assert!(matches!(error, TraceError::Dataset { found, .. } if &*found == "digits"));
}

/// A producer that hears no wish delivers no optional plane.
struct Deaf<'a>(&'a mut ShardWriter<Vec<u8>>);
impl RoutingSink for Deaf<'_> {
    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        self.0.begin(batch)
    }
    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        self.0.record(view)
    }
    fn end(&mut self) -> Result<(), SinkError> {
        self.0.end()
    }
}

#[test]
fn a_plane_that_is_recorded_but_not_delivered_is_an_error() {
    let recording = Recording::new(&geometry(4, 2, 2), &[3], 1);
    for (columns, missing, at) in [
        (TraceColumns { logits: true, ..TraceColumns::default() }, "router logits", 1),
        (TraceColumns { nll: true, ..TraceColumns::default() }, "token loss", 2),
    ] {
        let mut writer = writer(columns);
        let error = trace_error(recording.play(1, &mut Deaf(&mut writer)).unwrap_err());
        assert!(
            matches!(error, TraceError::PlaneMissing { plane, layer } if plane == missing && layer.0 == at),
            "{error}"
        );
    }
}

/// Some calls to a writer.
type Calls<'a> = dyn Fn(&mut ShardWriter<Vec<u8>>) -> Result<(), SinkError> + 'a;

#[test]
fn calls_out_of_order_are_errors_and_not_wrong_rows() {
    let geometry = geometry(4, 2, 2);
    let one = batch("letters", vec![0]);
    let planes = RoutingPlanes {
        experts: &[ExpertId(0), ExpertId(1)],
        weights: Some(&[0.5, 0.5]),
        margins: Some(&[0.0]),
        gate_entropy: Some(&[1.0]),
        ..RoutingPlanes::default()
    };
    let view = |ordinal: usize| {
        RoutingView::new(&geometry, geometry.ordinals().nth(ordinal).unwrap(), 1, planes).unwrap()
    };
    let order = |calls: &Calls<'_>| trace_error(calls(&mut writer(TraceColumns::default())).unwrap_err());
    for error in [
        order(&|w| w.record(&view(0))),
        order(&|w| w.end()),
        order(&|w| w.begin(&one).and_then(|()| w.begin(&one))),
        order(&|w| w.begin(&one).and_then(|()| w.record(&view(1)))),
        order(&|w| w.begin(&one).and_then(|()| w.record(&view(0))).and_then(|()| w.end())),
        order(&|w| w.begin(&one).and_then(|()| w.record(&view(0))).and_then(|()| w.record(&view(0)))),
    ] {
        assert!(matches!(error, TraceError::PassOrder { .. }), "{error}");
    }
    let mut open = writer(TraceColumns::default());
    open.begin(&one).unwrap();
    assert!(matches!(open.finish().unwrap_err(), TraceError::PassOrder { found: 0, expected: 1 }));
}

#[test]
fn a_view_of_another_geometry_is_refused() {
    let other = geometry(300, 2, 2);
    let planes = RoutingPlanes {
        experts: &[ExpertId(258), ExpertId(1)],
        weights: Some(&[0.5, 0.5]),
        margins: Some(&[0.0]),
        gate_entropy: Some(&[1.0]),
        ..RoutingPlanes::default()
    };
    let view = RoutingView::new(&other, other.ordinals().next().unwrap(), 1, planes).unwrap();
    let mut narrow = writer(TraceColumns::default());
    narrow.begin(&batch("letters", vec![0])).unwrap();
    let error = trace_error(narrow.record(&view).unwrap_err());
    assert!(matches!(error, TraceError::View { what: "highest expert", found: 258, .. }), "{error}");
    let mut longer = writer(TraceColumns::default());
    longer.begin(&batch("letters", vec![0, 1])).unwrap();
    let error = trace_error(longer.record(&view).unwrap_err());
    assert!(matches!(error, TraceError::View { what: "number of rows", found: 1, expected: 2, .. }));
}

#[test]
fn planes_of_another_width_are_refused_before_they_are_cut() {
    let own = geometry(4, 2, 2);
    let other = RoutingGeometry::new(3, 2, own.hidden() + 1, own.layers().to_vec()).unwrap();
    let values = vec![0.0; other.hidden()];
    let planes = RoutingPlanes {
        experts: &[ExpertId(2), ExpertId(1)],
        weights: Some(&[0.5, 0.5]),
        margins: Some(&[0.0]),
        gate_entropy: Some(&[1.0]),
        ..RoutingPlanes::default()
    };
    let logits = RoutingPlanes { logits: Some(&[0.0; 3]), ..planes };
    let hidden = RoutingPlanes { hidden: Some(HiddenRows { rows: &[0], values: &values }), ..planes };
    let one = batch("letters", vec![0]).with_hidden_rows(vec![0]).unwrap();
    let settings = |columns| TraceSettings { columns, ..TraceSettings::default() };
    let all = TraceColumns { logits: true, hidden: true, ..TraceColumns::default() };
    for (planes, named, found) in
        [(logits, "number of logits of a row", 3), (hidden, "hidden width", other.hidden())]
    {
        let mut writer =
            ShardWriter::new(&own, &settings(all), &"letters".into(), Vec::new(), Some(Vec::new())).unwrap();
        writer.begin(&one).unwrap();
        let view = RoutingView::new(&other, other.ordinals().next().unwrap(), 1, planes).unwrap();
        let error = trace_error(writer.record(&view).unwrap_err());
        assert!(
            matches!(error, TraceError::View { what, found: f, .. } if (what, f) == (named, found)),
            "{error}"
        );
    }
}

#[test]
fn only_the_loss_of_a_first_token_may_be_missing() {
    let geometry = geometry(4, 2, 2);
    let record = |nll: &[f32; 3]| -> Result<(), TraceError> {
        let mut writer = writer(TraceColumns { nll: true, ..TraceColumns::default() });
        writer.begin(&batch("letters", vec![0, 1, 2])).unwrap();
        for ordinal in geometry.ordinals() {
            let planes = RoutingPlanes {
                experts: &[ExpertId(2), ExpertId(1)].repeat(3),
                weights: Some(&[0.5; 6]),
                margins: Some(&[0.0; 3]),
                gate_entropy: Some(&[1.0; 3]),
                nll: (ordinal.index() == 1).then_some(nll),
                ..RoutingPlanes::default()
            };
            writer.record(&RoutingView::new(&geometry, ordinal, 3, planes).unwrap()).map_err(trace_error)?;
        }
        Ok(())
    };
    assert!(record(&[f32::NAN, 1.0, 2.0]).is_ok());
    let error = record(&[f32::NAN, 1.0, f32::NAN]).unwrap_err();
    assert!(matches!(error, TraceError::Loss { sample: SampleId(7), row: 2 }), "{error}");
}

#[test]
fn a_hidden_file_is_given_exactly_when_hidden_states_are_recorded() {
    for (hidden, given) in [(true, None), (false, Some(Vec::new()))] {
        let columns = TraceColumns { hidden, ..TraceColumns::default() };
        let settings = TraceSettings { columns, ..TraceSettings::default() };
        let new = ShardWriter::new(&geometry(4, 2, 2), &settings, &"d".into(), Vec::<u8>::new(), given);
        assert!(matches!(new.unwrap_err(), TraceError::HiddenFile { recorded, .. } if recorded == hidden));
    }
}

#[test]
fn keys_of_the_format_cannot_be_set_by_a_run() {
    let metadata = BTreeMap::from([("schema_version".to_owned(), "9".to_owned())]);
    let settings = TraceSettings { metadata, ..TraceSettings::default() };
    let writer = ShardWriter::new(&geometry(4, 2, 2), &settings, &"d".into(), Vec::<u8>::new(), None);
    for error in [
        writer.unwrap_err(),
        write_samples(Vec::new(), "d", &[], &settings).unwrap_err(),
        write_vocabulary(Vec::new(), &[], &settings).unwrap_err(),
    ] {
        assert!(matches!(error, TraceError::MetadataKey { key } if key == "schema_version"));
    }
}

/// Takes `room` bytes and then says that the disk is full; counts who holds it.
struct SmallDisk {
    room: usize,
    _held: Arc<()>,
}

impl Write for SmallDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(self.room);
        self.room -= taken;
        Ok(taken)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Some 140,000 rows: the first row group is written long before the shard ends.
fn long_recording() -> Recording {
    Recording::new(&geometry(4, 1, 1), &[20_000; 7], 8)
}

#[test]
fn a_full_disk_comes_back_as_itself_wherever_it_happens() {
    let recording = long_recording();
    let whole = recording.write(&TraceSettings::default(), 1).data.len();
    for room in [0, 3, 1_000, whole / 2, whole - 1] {
        let held = Arc::new(());
        let disk = SmallDisk { room, _held: Arc::clone(&held) };
        let writer =
            ShardWriter::new(&recording.geometry, &TraceSettings::default(), &"letters".into(), disk, None);
        let error = match writer {
            Ok(mut writer) => match recording.play(1, &mut writer) {
                Ok(()) => writer.finish().map(|_| ()).unwrap_err(),
                Err(error) => trace_error(error),
            },
            Err(error) => error,
        };
        assert_eq!(error.io_error().map(io::Error::kind), Some(ErrorKind::StorageFull), "{room}: {error:?}");
        assert!(matches!(error, TraceError::Write { table: "tokens", .. }), "{room}: {error}");
        assert_eq!(Arc::strong_count(&held), 1, "the encoder still holds the file");
    }
    let held = Arc::new(());
    let disk = SmallDisk { room: 10, _held: held };
    let error =
        write_samples(disk, "d", &recording.samples(), &TraceSettings::default()).map(|_| ()).unwrap_err();
    assert_eq!(error.io_error().map(io::Error::kind), Some(ErrorKind::StorageFull));
}

#[test]
fn a_writer_that_failed_stays_failed() {
    let recording = long_recording();
    let disk = SmallDisk { room: 4, _held: Arc::new(()) };
    let mut writer =
        ShardWriter::new(&recording.geometry, &TraceSettings::default(), &"letters".into(), disk, None)
            .unwrap();
    let first = (0..200).find_map(|_| recording.play(1, &mut writer).err()).map(trace_error).unwrap();
    assert!(first.io_error().is_some());
    let next = trace_error(recording.play(1, &mut writer).unwrap_err());
    assert!(matches!(next, TraceError::EncoderLost { .. }), "{next}");
    assert!(writer.finish().is_err());
}

#[test]
fn a_writer_dropped_half_way_leaves_no_thread_and_no_footer() {
    let recording = long_recording();
    for passes in [0, 3, 7] {
        let held = Arc::new(());
        let disk = SmallDisk { room: usize::MAX, _held: Arc::clone(&held) };
        let settings = TraceSettings { threads: 2, ..TraceSettings::default() };
        let mut writer =
            ShardWriter::new(&recording.geometry, &settings, &"letters".into(), disk, None).unwrap();
        let some = Recording { spans: recording.spans[..passes].to_vec(), ..recording.clone() };
        some.play(1, &mut writer).unwrap();
        drop(writer);
        // The file lives in the thread; nobody holding it means that the thread is gone.
        assert_eq!(Arc::strong_count(&held), 1);
    }
}

/// Panics on the first write that is longer than the magic bytes.
struct Bomb;

impl Write for Bomb {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(bytes.len() <= 4, "a bomb goes off");
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_panic_of_the_file_is_an_error_of_the_writer() {
    let recording = Recording::new(&geometry(4, 1, 1), &[10], 8);
    let mut writer =
        ShardWriter::new(&recording.geometry, &TraceSettings::default(), &"letters".into(), Bomb, None)
            .unwrap();
    recording.play(1, &mut writer).unwrap();
    assert!(matches!(writer.finish().map(|_| ()).unwrap_err(), TraceError::EncoderLost { .. }));
}
