//! What one answer of a virtual meter costs. `cargo bench -p ipss-core --bench virtual_meter`.

#![allow(missing_docs)] // criterion writes an undocumented function

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipss_core::virtual_meter::{Fleet, FleetSpec, Kind};
use ipss_dlms::cosem::descriptor::CaptureObject;
use ipss_dlms::cosem::{AttributeDescriptor, LogicalName, RangeSelection, Selection};
use ipss_dlms::meter::{Access, Objects};
use ipss_session::{Instant, Now, WallTime};

const MANAGER: Access = Access { client: 1, authenticated: true };
const DAY_US: i64 = 86_400 * WallTime::SECOND;

/// The load profile's lines of the last `days` days at noon of day 364, asked for by range.
fn days(days: i64, end: WallTime) -> Selection {
    let clock = AttributeDescriptor { class_id: 8, logical_name: LogicalName::CLOCK, attribute: 2 };
    Selection::Range(RangeSelection {
        restricting_object: CaptureObject { descriptor: clock, data_index: 0 },
        from: WallTime(end.0 - days * DAY_US + 1),
        to: end,
        columns: Vec::new(),
    })
}

fn answers(c: &mut Criterion) {
    let fleet = Fleet::new(FleetSpec { drift_ppm: 5, ..FleetSpec::default() }).unwrap();
    let end = WallTime(fleet.spec().start.0 + 364 * DAY_US + DAY_US / 2);
    let now = Now { monotonic: Instant::ORIGIN, wall: end };
    let profile = AttributeDescriptor { class_id: 7, logical_name: LogicalName([1, 0, 99, 1, 0, 255]), attribute: 2 };
    let register = AttributeDescriptor { class_id: 3, logical_name: LogicalName([1, 0, 1, 8, 0, 255]), attribute: 2 };
    let demand = AttributeDescriptor { class_id: 4, logical_name: LogicalName([1, 0, 1, 6, 0, 255]), attribute: 2 };
    let objects = AttributeDescriptor { class_id: 15, logical_name: LogicalName::CURRENT_ASSOCIATION, attribute: 2 };
    let mut out = Vec::new();
    let mut group = c.benchmark_group("virtual meter");
    for kind in Kind::ALL {
        let index = (0..fleet.count()).find(|index| fleet.kind(*index) == kind).unwrap();
        let mut meter = fleet.meter(index);
        for (name, span) in [("day", 1), ("year", 364)] {
            let selection = days(span, end);
            group.throughput(Throughput::Elements(span as u64 * 96));
            group.bench_function(format!("load profile of a {name}, {}", kind.name()), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    meter.get(MANAGER, profile, Some(black_box(&selection)), now, &mut out)
                });
            });
        }
        group.throughput(Throughput::Elements(1));
        for (name, object) in [("register", register), ("maximum demand", demand), ("object list", objects)] {
            group.bench_function(format!("{name}, {}", kind.name()), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    meter.get(MANAGER, black_box(object), None, now, &mut out)
                });
            });
        }
    }
    group.bench_function("identity with keys", |bencher| bencher.iter(|| fleet.identity(black_box(17))));
    group.finish();
}

criterion_group!(benches, answers);
criterion_main!(benches);
