//! Frames in, answers out.

use std::collections::VecDeque;
use std::sync::Arc;

use ipss_session::{Context, EventKind, Input, Instant, MeterId, Outcome, Session, Step, Transport};

use super::answer::answer;
use super::model::Role;
use super::{Access, Fault, Model};
use crate::adu::{Direction, ascii, rtu, tcp, udp};
use crate::function::{EXCEPTION, Exception};
use crate::pdu::{Extent, ResponsePdu, Table};
use crate::profile::Framing;
use crate::quirks::Quirks;

/// What devices of one kind share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How frames travel.
    pub framing: Framing,
    /// Whether unit 0 is all units, which do not answer; as a rule only on serial lines.
    pub unit_zero_broadcasts: bool,
    /// What the other end may do, as the transport proved it.
    pub role: Role,
}

impl Settings {
    /// With the specification's own meaning of unit 0.
    pub fn new(framing: Framing) -> Self {
        Self { framing, unit_zero_broadcasts: !framing.has_transaction_ids(), role: Role::Anybody }
    }
}

/// The devices behind one connection.
#[derive(Debug)]
pub struct Device<M> {
    meter: MeterId,
    settings: Arc<Settings>,
    /// What they hold.
    pub model: M,
    fault: Fault,
    up: bool,
    rtu: rtu::Receiver,
    ascii: ascii::Receiver,
    last_octet: Instant,
    /// What is sent later, and when.
    delayed: VecDeque<(Instant, Vec<u8>)>,
}

/// What the owner of a virtual device may tell it.
#[derive(Clone, Debug)]
pub enum DeviceControl {
    /// Behave like this from now on.
    Fault(Fault),
}

/// Answers that wait to be sent late: beyond these a device is silent.
const MAX_DELAYED: usize = 4_096;

impl<M: Model> Device<M> {
    /// What `model` holds, behind a connection of this kind.
    pub fn new(meter: MeterId, settings: Arc<Settings>, model: M) -> Self {
        Self {
            meter,
            settings,
            model,
            fault: Fault::None,
            up: false,
            rtu: rtu::Receiver::default(),
            ascii: ascii::Receiver::default(),
            last_octet: Instant::ORIGIN,
            delayed: VecDeque::new(),
        }
    }

    /// The same, misbehaving.
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    fn settled(&self, consumed: usize) -> Step<()> {
        let delayed = self.delayed.front().map(|(at, _)| *at);
        let held = match self.settings.framing {
            Framing::Rtu(timing) if !self.rtu.is_empty() => Some(self.last_octet + timing.t3_5() + timing.slack),
            _ => None,
        };
        Step { consumed, ..Step::wait(delayed.into_iter().chain(held).min()) }
    }

    fn take_bytes(&mut self, octets: &mut [u8], cx: &mut Context<'_>) -> Step<()> {
        let mut consumed = 0;
        let quirks = Quirks::default();
        match self.settings.framing {
            Framing::Tcp => loop {
                match tcp::next(&octets[consumed..], Direction::Request, &quirks) {
                    Ok(Some(adu)) => {
                        consumed += adu.length;
                        self.serve(Some(adu.transaction), adu.unit, adu.pdu, cx);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        let kind = EventKind::ProtocolViolation;
                        cx.batch.event(self.meter, cx.now.wall, kind, 0, format!("{}: {error}", error.code));
                        return Step { transport: Transport::Close, ..Step::wait(None) };
                    }
                }
            },
            Framing::Udp => {
                while let Some(adu) = udp::next(&octets[consumed..], Direction::Request, &quirks) {
                    consumed += adu.length;
                    self.serve(Some(adu.transaction), adu.unit, adu.pdu, cx);
                }
                consumed = octets.len();
            }
            Framing::Rtu(_) | Framing::RtuOverTcp => {
                self.last_octet = cx.now.monotonic;
                while consumed < octets.len() {
                    let room = self.rtu.room().min(octets.len() - consumed);
                    if room == 0 {
                        self.rtu.clear();
                        continue;
                    }
                    self.rtu.push(&octets[consumed..consumed + room]);
                    consumed += room;
                    self.take_frames(true, cx);
                }
            }
            Framing::Ascii => {
                for octet in &*octets {
                    if let Some((unit, pdu)) = self.ascii.push(*octet) {
                        let pdu = pdu.to_vec();
                        self.serve(None, unit, &pdu, cx);
                    }
                }
                consumed = octets.len();
            }
        }
        self.settled(consumed)
    }

    fn take_frames(&mut self, hold: bool, cx: &mut Context<'_>) {
        loop {
            let Self { rtu, model, .. } = self;
            let extent = |pdu: &[u8]| match Direction::Request.extent(pdu, false) {
                // No function of ours has no length but query data, which is as long as it is.
                Extent::Open if pdu.first() == Some(&crate::function::DIAGNOSTICS) => Extent::Known(5),
                extent => extent,
            };
            let model = std::cell::RefCell::new(model);
            let wanted = |rest: &[u8]| {
                rest.first().is_some_and(|unit| *unit == 0 || model.borrow_mut().serves(*unit))
                    && rest.get(1).is_none_or(|function| crate::function::name(*function).is_some())
            };
            let Some(place) = rtu.next(hold, extent, wanted) else { return };
            let Some((unit, pdu)) = rtu.take(place) else { return };
            let pdu = pdu.to_vec();
            self.serve(None, unit, &pdu, cx);
        }
    }

    /// One request.
    fn serve(&mut self, transaction: Option<u16>, unit: u8, pdu: &[u8], cx: &mut Context<'_>) {
        let broadcast = unit == 0 && self.settings.unit_zero_broadcasts;
        let silent = self.fault == Fault::Silent || self.fault == Fault::SilentUnit(unit);
        if silent || !broadcast && !self.model.serves(unit) {
            return;
        }
        let access = Access { unit, role: self.settings.role };
        let mut out = Vec::with_capacity(260);
        let function = pdu.first().copied().unwrap_or_default();
        let writes = !crate::function::only_reads(pdu);
        match self.fault {
            Fault::Busy => ResponsePdu::Exception { function, code: Exception::SERVER_DEVICE_BUSY }.encode(&mut out),
            Fault::SmallBlocks(most) if too_large(pdu, most) => {
                ResponsePdu::Exception { function, code: Exception::GATEWAY_TARGET_FAILED }.encode(&mut out);
            }
            _ if access.role == Role::Reader && writes => {
                ResponsePdu::Exception { function, code: Exception::ILLEGAL_FUNCTION }.encode(&mut out);
            }
            _ => answer(&mut self.model, access, pdu, cx.now, &mut out),
        }
        if broadcast {
            return;
        }
        if self.fault == Fault::Echo {
            out = pdu.to_vec();
        }
        if self.fault == Fault::WrongFunction {
            out[0] = (out[0] & EXCEPTION) | ((out[0] & !EXCEPTION) % 6 + 1);
        }
        let unit = if self.fault == Fault::WrongUnit { unit.wrapping_add(1) } else { unit };
        let mut transaction = transaction.unwrap_or_default();
        if self.fault == Fault::WrongTransaction {
            transaction = transaction.wrapping_add(1);
        }
        let frame = self.frame(transaction, unit, &mut out);
        self.send(frame, cx);
    }

    fn frame(&self, transaction: u16, unit: u8, pdu: &mut [u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(pdu.len() + 8);
        if let Fault::Garbage(count) = self.fault {
            frame.resize(usize::from(count), 0x5A);
        }
        let lie = if let Fault::LengthLie(lie) = self.fault { lie } else { 0 };
        match self.settings.framing {
            Framing::Tcp | Framing::Udp => {
                let mark = tcp::begin(&mut frame, transaction, unit);
                frame.extend_from_slice(pdu);
                tcp::finish(&mut frame, mark);
                frame[mark + 5] = frame[mark + 5].wrapping_add_signed(lie);
            }
            Framing::Rtu(_) | Framing::RtuOverTcp => {
                let mark = rtu::begin(&mut frame, unit);
                if let Some(count) = pdu.get_mut(1) {
                    *count = count.wrapping_add_signed(lie);
                }
                frame.extend_from_slice(pdu);
                rtu::finish(&mut frame, mark);
                if self.fault == Fault::WrongCheck {
                    let last = frame.len() - 1;
                    frame[last] ^= 0x40;
                }
            }
            Framing::Ascii => {
                ascii::encode(unit, pdu, &mut frame);
                if self.fault == Fault::WrongCheck {
                    let check = frame.len() - 3;
                    frame[check] = if frame[check] == b'0' { b'1' } else { b'0' };
                }
            }
        }
        frame
    }

    fn send(&mut self, frame: Vec<u8>, cx: &mut Context<'_>) {
        let now = cx.now.monotonic;
        let last = self.delayed.back().map_or(now, |(at, _)| *at);
        if self.delayed.len() >= MAX_DELAYED {
            return;
        }
        match self.fault {
            Fault::Late(delay) => self.delayed.push_back((last.max(now + delay), frame)),
            Fault::Slow(apart) => {
                let mut at = last.max(now);
                for octet in frame {
                    at = at + apart;
                    self.delayed.push_back((at, vec![octet]));
                }
            }
            Fault::Twice => {
                cx.to_send.extend_from_slice(&frame);
                cx.to_send.extend_from_slice(&frame);
            }
            _ if !self.delayed.is_empty() => self.delayed.push_back((last, frame)),
            _ => cx.to_send.extend_from_slice(&frame),
        }
    }

    fn wake(&mut self, cx: &mut Context<'_>) -> Step<()> {
        let now = cx.now.monotonic;
        if let Framing::Rtu(timing) = self.settings.framing {
            if !self.rtu.is_empty() && self.last_octet + timing.t3_5() + timing.slack <= now {
                self.take_frames(false, cx);
                self.rtu.clear();
            }
        }
        while self.delayed.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, frame)) = self.delayed.pop_front() else { break };
            cx.to_send.extend_from_slice(&frame);
        }
        self.settled(0)
    }
}

fn too_large(pdu: &[u8], most: u16) -> bool {
    let table = pdu.first().and_then(|function| Table::of_function(*function));
    table.is_some_and(|table| !table.is_bits()) && crate::pdu::u16_at(pdu, 3).is_some_and(|quantity| quantity > most)
}

impl<M: Model> Session for Device<M> {
    type Work = ();
    type Control = DeviceControl;

    fn step(&mut self, input: Input<'_, (), DeviceControl>, cx: &mut Context<'_>) -> Step<()> {
        match input {
            Input::Bytes(octets) => self.take_bytes(octets, cx),
            Input::Deadline => self.wake(cx),
            Input::Opened | Input::Closed => {
                self.up = matches!(input, Input::Opened);
                self.rtu.clear();
                self.ascii.clear();
                self.delayed.clear();
                self.settled(0)
            }
            Input::Control(DeviceControl::Fault(fault)) => {
                self.fault = fault;
                self.settled(0)
            }
            Input::Request(request) => {
                let step = self.settled(0);
                Step { finished: Some((request, Outcome::Impossible)), ..step }
            }
            Input::Release => Step { transport: Transport::Close, ..Step::wait(None) },
            Input::Cancel(_) | Input::Probe => self.settled(0),
        }
    }

    fn ready(&self) -> bool {
        false
    }

    fn associated(&self) -> bool {
        self.up
    }
}
