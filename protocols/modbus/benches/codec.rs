//! What one answer of 125 registers and one whole exchange cost. `cargo bench -p ipss-modbus --bench codec`;
//! `benches/modbus.py` runs it beside pymodbus.

#![allow(missing_docs)] // criterion writes an undocumented function

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use ipss_modbus::Decode;
use ipss_modbus::adu::{Direction, rtu, tcp};
use ipss_modbus::group::Span;
use ipss_modbus::head_end::{HeadEnd, Item, Plan, Point, Read, Work};
use ipss_modbus::pdu::{Registers, ResponsePdu, Table, response_extent};
use ipss_modbus::profile::Profile;
use ipss_modbus::quirks::Quirks;
use ipss_session::rig::SeededRandom;
use ipss_session::{Batch, Context, Input, Instant, Now, Outcome, Priority, Request, Session, WallTime};

const QUANTITY: u16 = 125;

fn answer() -> Vec<u8> {
    let octets: Vec<u8> = (0..QUANTITY).flat_map(u16::to_be_bytes).collect();
    let mut pdu = Vec::new();
    ResponsePdu::Registers { table: Table::Holding, values: Registers::new(&octets) }.encode(&mut pdu);
    pdu
}

fn over_tcp() -> Vec<u8> {
    let mut frame = Vec::new();
    let mark = tcp::begin(&mut frame, 1, 1);
    frame.extend_from_slice(&answer());
    tcp::finish(&mut frame, mark);
    frame
}

fn over_rtu() -> Vec<u8> {
    let mut frame = Vec::new();
    let mark = rtu::begin(&mut frame, 1);
    frame.extend_from_slice(&answer());
    rtu::finish(&mut frame, mark);
    frame
}

/// All registers as integers, as whoever decodes wants them.
fn registers(pdu: &[u8], into: &mut Vec<u16>) {
    let Ok(ResponsePdu::Registers { values, .. }) = ResponsePdu::decode(pdu) else { panic!("no registers") };
    into.clear();
    into.extend(values.iter());
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("modbus");
    let mut into = Vec::new();
    let frame = over_tcp();
    group.bench_function("tcp-125", |bencher| {
        bencher.iter(|| {
            let adu = tcp::next(black_box(&frame), Direction::Response, &Quirks::default()).unwrap().unwrap();
            registers(adu.pdu, &mut into);
            black_box(into.len())
        });
    });
    let frame = over_rtu();
    let mut receiver = rtu::Receiver::default();
    group.bench_function("rtu-125", |bencher| {
        bencher.iter(|| {
            receiver.push(black_box(&frame));
            let place = receiver.next(true, |pdu| response_extent(pdu, false), |_| true).unwrap();
            let (_, pdu) = receiver.take(place).unwrap();
            registers(pdu, &mut into);
            black_box(into.len())
        });
    });
    group.finish();
}

/// A request of one read, its question and its answer, through the head-end's session into a batch.
fn exchange(c: &mut Criterion) {
    let span = Span { table: Table::Holding, address: 0, count: QUANTITY };
    let points: Vec<Point> =
        (0..QUANTITY).map(|offset| Point { span: 0, offset, count: 1, decode: Decode::Unsigned }).collect();
    let read = Read::new(1, &[span], &points).unwrap();
    let plan = Arc::new(Plan { items: [Item::Read(read)].into() });
    let mut session = HeadEnd::new(1, Arc::new(Profile::tcp()));
    let (mut random, mut to_send, mut batch) = (SeededRandom::new(1), Vec::new(), Batch::default());
    let now = Now { monotonic: Instant(1), wall: WallTime(0) };
    let _ = session
        .step(Input::Opened, &mut Context { now, random: &mut random, to_send: &mut to_send, batch: &mut batch });
    let mut frame = over_tcp();
    c.benchmark_group("modbus").bench_function("exchange-125", |bencher| {
        bencher.iter(|| {
            to_send.clear();
            batch = Batch {
                kinds: std::mem::take(&mut batch.kinds),
                integers: std::mem::take(&mut batch.integers),
                ..Batch::default()
            };
            batch.kinds.clear();
            batch.integers.clear();
            let work = Work { meter: 1, unit: 1, plan: plan.clone() };
            let deadline = Instant(u64::MAX);
            let request =
                Request { id: 1, deadline, priority: Priority::Scheduled, attempts_left: 0, exchanges: 0, work };
            let mut cx = Context { now, random: &mut random, to_send: &mut to_send, batch: &mut batch };
            let _ = session.step(Input::Request(request), &mut cx);
            frame[..2].copy_from_slice(&cx.to_send[..2]);
            let step = session.step(Input::Bytes(&mut frame), &mut cx);
            assert_eq!(step.finished.unwrap().1, Outcome::Done);
            black_box(batch.integers.len())
        });
    });
}

criterion_group!(benches, decode, exchange);
criterion_main!(benches);
