//! Reads a meter out as text (IEC 62056-21 mode C): sign-on, identification, acknowledgement for data readout, and the
//! data block whose check character is right.
//!
//! Whatever a request asks, its answer is the whole block: a line for each data set, whose cells are the address, the
//! value and the unit as text, and the logical name where the address is one.

use ipss_session::{
    Cell, Context, EventKind, Input, Instant, Line, MeterId, Outcome, ProtocolError, Request, Session, Step, Transport,
    WallTime,
};

use super::{Control, Work};
use crate::link::ModeE;
use crate::link::optical::{Opening, data_block};
use ipss_session::Limits;

/// One meter on an optical head or a current loop.
#[derive(Debug)]
pub struct DataReadout {
    meter: MeterId,
    config: ModeE,
    limits: Limits,
    opening: Option<Opening>,
    octets: Vec<u8>,
    request: Option<Request<Work>>,
    last: Instant,
}

impl DataReadout {
    /// A meter that is signed on to as `config` says.
    pub fn new(meter: MeterId, config: ModeE, limits: Limits) -> Self {
        let config = ModeE { readout: true, ..config };
        Self { meter, config, limits, opening: None, octets: Vec::new(), request: None, last: Instant::ORIGIN }
    }

    fn take(&mut self, octets: &[u8], cx: &mut Context<'_>) -> Result<Option<Outcome>, ProtocolError> {
        let Some(opening) = &mut self.opening else { return Ok(None) };
        self.last = cx.now.monotonic;
        let mut done = 0;
        if !opening.is_acknowledged() {
            done = opening.feed(octets, cx.now.monotonic, cx.to_send)?.0;
        }
        // A driver without parity hands the parity bit up.
        self.octets.extend(octets[done..].iter().map(|octet| octet & 0x7F));
        let Some((readout, _)) = data_block(&self.octets, &self.limits)? else { return Ok(None) };
        let request = self.request.as_ref().map_or(0, |request| request.id);
        for (item, set) in (0..=u16::MAX).zip(readout.lines()) {
            let line = Line {
                meter: self.meter,
                request,
                item,
                layout: 0,
                capture_time: WallTime::UNKNOWN,
                deviation: Line::NO_DEVIATION,
                clock_status: 0xFF,
            };
            let name = set.logical_name().map(|name| name.0);
            let text = [set.address, set.value, set.unit].map(|text| Cell::Raw(text.as_bytes()));
            cx.batch
                .push_line(line, text.into_iter().chain([name.as_ref().map_or(Cell::Null, |name| Cell::Raw(name))]));
        }
        Ok(Some(Outcome::Done))
    }

    fn woken(&mut self, cx: &mut Context<'_>) -> Result<Option<Outcome>, ProtocolError> {
        let now = cx.now.monotonic;
        let Some(opening) = &mut self.opening else { return Ok(None) };
        opening.wake(now, cx.to_send)?;
        let silent = opening.is_acknowledged() && now >= self.last + self.limits.answer;
        let over = self.request.as_ref().is_some_and(|request| request.deadline <= now);
        Ok((silent || over).then_some(Outcome::TimedOut))
    }

    fn settle(&mut self, found: Result<Option<Outcome>, ProtocolError>, cx: &mut Context<'_>) -> Step<Work> {
        let mut step = Step::wait(None);
        let (outcome, detail) = match found {
            Ok(None) => {
                let opening = self.opening.as_mut();
                let silent = opening.as_ref().filter(|opening| opening.is_acknowledged());
                let silent = silent.map(|_| self.last + self.limits.answer);
                let due = [
                    opening.as_ref().and_then(|opening| opening.deadline()),
                    silent,
                    self.request.as_ref().map(|request| request.deadline),
                ];
                step.deadline = due.into_iter().flatten().min();
                if let Some(settings) = opening.and_then(Opening::take_serial) {
                    step.transport = Transport::Serial(settings);
                    self.last = cx.now.monotonic;
                }
                return step;
            }
            Ok(Some(outcome)) => (outcome, String::new()),
            Err(error) if error.code == "no-answer" => (Outcome::TimedOut, error.to_string()),
            Err(error) => {
                let detail = format!("{}: {error}", error.code);
                cx.batch.event(self.meter, cx.now.wall, EventKind::ProtocolViolation, 0, detail.clone());
                (Outcome::Violation, detail)
            }
        };
        step.finished = self.request.take().map(|request| (request, outcome));
        step.detail = detail;
        step.transport = Transport::Close;
        step
    }
}

impl Session for DataReadout {
    type Work = Work;
    type Control = Control;

    fn step(&mut self, input: Input<'_, Work, Control>, cx: &mut Context<'_>) -> Step<Work> {
        match input {
            Input::Opened => {
                self.opening = Some(Opening::new(&self.config, true, cx.now.monotonic));
                self.octets.clear();
                self.settle(Ok(None), cx)
            }
            Input::Bytes(octets) => {
                let found = self.take(octets, cx);
                Step { consumed: octets.len(), ..self.settle(found, cx) }
            }
            Input::Deadline => {
                let found = self.woken(cx);
                self.settle(found, cx)
            }
            Input::Request(request) => {
                self.request = Some(request);
                self.settle(Ok(None), cx)
            }
            Input::Cancel(id) if self.request.as_ref().is_some_and(|request| request.id == id) => {
                self.settle(Ok(Some(Outcome::Cancelled)), cx)
            }
            Input::Closed => {
                self.opening = None;
                self.octets = Vec::new();
                let finished = self.request.take().map(|request| (request, Outcome::Interrupted));
                Step { finished, ..Step::wait(None) }
            }
            Input::Release => Step { transport: Transport::Close, ..Step::wait(None) },
            Input::Cancel(_) | Input::Control(_) | Input::Probe => self.settle(Ok(None), cx),
        }
    }

    fn ready(&self) -> bool {
        self.opening.is_some() && self.request.is_none()
    }

    /// The meter has said who it is; there is no more to a readout.
    fn associated(&self) -> bool {
        self.opening.as_ref().is_some_and(Opening::is_acknowledged)
    }
}
