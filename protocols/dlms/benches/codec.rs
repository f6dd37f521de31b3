//! Small benchmarks of the codec: what one decode costs. `cargo bench -p ipss-dlms --bench codec`.

#![allow(missing_docs)] // criterion writes an undocumented function

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipss_dlms::axdr::{BufferShape, Data, DateTime, Reader, decode_buffer, skip};
use ipss_session::{Batch, Limits, Line, WallTime};

/// A day of quarter-hours: clock and four registers, 96 entries.
fn profile() -> Vec<u8> {
    let entries = (0..96).map(|entry: u32| {
        let clock = DateTime::from_wall(WallTime((1_700_000_100 + i64::from(entry) * 900) * WallTime::SECOND), -60);
        let registers = (1..5).map(|channel| Data::DoubleLongUnsigned(12_345_678 * channel + entry * 17));
        Data::Structure([Data::OctetString(clock.0.to_vec())].into_iter().chain(registers).collect())
    });
    Data::Array(entries.collect()).to_octets()
}

fn decode(c: &mut Criterion) {
    let octets = profile();
    let limits = Limits::default();
    let shape = BufferShape { columns: 5, clock_column: Some(0), status_column: None, capture_period_s: 900 };
    let head = Line {
        meter: 1,
        request: 1,
        item: 0,
        layout: 1,
        capture_time: WallTime::UNKNOWN,
        deviation: Line::NO_DEVIATION,
        clock_status: 0xFF,
    };
    let mut batch = Batch::default();
    let mut group = c.benchmark_group("profile 96x4");
    group.throughput(Throughput::Bytes(octets.len() as u64));
    group.bench_function("into columns", |bencher| {
        bencher.iter(|| {
            let mark = Batch::default().mark();
            batch.rewind(mark);
            decode_buffer(black_box(&octets), &shape, head, &limits, &mut batch).unwrap()
        });
    });
    group.bench_function("skip", |bencher| {
        bencher.iter(|| skip(&mut Reader::new(black_box(&octets)), &limits).unwrap());
    });
    group.bench_function("into a tree", |bencher| {
        bencher.iter(|| Data::from_octets(black_box(&octets), &limits).unwrap());
    });
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
