//! The head-end's role: ask, match answers with questions, take them apart into rows.
//!
//! ```text
//! Down --Opened--> Up: [requests held] -> [questions on the wire] -> rows, ends
//!   ^--- Closed, a frame that cannot be, or a line without a sign of life ---|
//! ```
//!
//! Several requests are held at once, and several questions may be on the wire where answers name theirs. An answer
//! belongs to a question if transaction id, unit and function agree (without transaction ids: unit, function and
//! length, one question at a time, and none to a unit from which a late answer may still come). Whatever else arrives
//! is dropped and counted ([`Counters`]), never attributed to another question.
//!
//! Reads are asked again; a write whose answer is lost, late or wrong ends as [`Outcome::Unknown`] and never is. A unit
//! that is silent rests while its neighbours are asked. Requests end one a step: the session asks to be stepped again
//! at once while there are more.

mod exchange;
mod line;
mod unit;
mod work;

use std::collections::VecDeque;
use std::sync::Arc;

use ipss_session::{
    Context, EventKind, Input, Instant, MeterId, Outcome, ProtocolError, Request, Session, Step, Transport,
};

pub use work::{Ask, Item, MAX_OCTETS, Plan, Point, Read, Work};

use crate::adu::{Direction, tcp};
use crate::group::Span;
use crate::profile::Profile;
use line::{Line, Wanted};
use unit::Unit;

/// One connection to a device or a gateway. Lives as long as the device is known; connections come and go.
#[derive(Debug)]
pub struct HeadEnd {
    meter: MeterId,
    profile: Arc<Profile>,
    up: bool,
    line: Line,
    jobs: Vec<Job>,
    wire: Vec<Question>,
    ghosts: Vec<Ghost>,
    units: Vec<Unit>,
    finished: VecDeque<(Request<Work>, Outcome, String)>,
    next_transaction: u16,
    /// Tells jobs apart from those that held their place before.
    serial: u32,
    /// Nothing is sent before this moment.
    next_send: Instant,
    /// Questions in a row without any octet from the line.
    silence: u8,
    /// When it was last said that answers are dropped.
    dropped_reported: Option<Instant>,
    counters: Counters,
}

/// What came over the line and was used for nothing, since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Answers to questions whose time was over, and second answers.
    pub late: u64,
    /// Answers to no question that was ever asked: another transaction id, unit or function.
    pub unexpected: u64,
    /// Questions without an answer in time.
    pub unanswered: u64,
    /// Octets that belonged to no frame.
    pub garbage: u64,
    /// Frames whose check did not fit.
    pub broken: u64,
}

/// A request in work.
#[derive(Debug)]
struct Job {
    request: Request<Work>,
    serial: u32,
    item: u16,
    /// What is still to be asked for the item, the last first.
    todo: Vec<Todo>,
    /// Questions of it on the wire.
    open: u16,
    /// What a read has got so far.
    octets: Vec<u8>,
    /// What of it was refused, and how.
    refused: Vec<(Span, u8)>,
    /// Blocks whose registers had 16 bits although they may have 32.
    narrow: Vec<Span>,
    /// Some part of the request was answered by the device's own *no*.
    any_refused: bool,
    /// A write of it was sent.
    wrote: bool,
    /// Not asked before this moment: the unit was busy.
    not_before: Instant,
    /// When its last question was sent: those that waited longest go first.
    served: Instant,
}

/// A question that is to be asked.
#[derive(Clone, Copy, Debug)]
struct Todo {
    /// The block of a read; `None` for an item that is one question.
    block: Option<Span>,
    /// How often it was asked without an answer.
    tries: u8,
    /// How often the unit was busy.
    busy: u8,
}

/// A question on the wire.
#[derive(Debug)]
struct Question {
    transaction: u16,
    unit: u8,
    function: u8,
    /// Octets of the answer's PDU, if the question tells.
    length: Option<usize>,
    deadline: Instant,
    /// Whose it is; the job may be gone.
    job: u32,
    todo: Todo,
}

/// A question whose time is over, and whose answer may still come.
#[derive(Debug)]
struct Ghost {
    transaction: u16,
    unit: u8,
    until: Instant,
}

/// Questions whose late answers are known as such: beyond these they count as unexpected.
const MAX_GHOSTS: usize = 32;
/// Least time between two events about dropped answers.
const REPORT_EVERY: std::time::Duration = std::time::Duration::from_secs(10);

impl HeadEnd {
    /// A device, or a gateway. `meter` is whose the line's own events are.
    pub fn new(meter: MeterId, profile: Arc<Profile>) -> Self {
        Self {
            meter,
            up: false,
            line: Line::new(&profile),
            profile,
            jobs: Vec::new(),
            wire: Vec::new(),
            ghosts: Vec::new(),
            units: Vec::new(),
            finished: VecDeque::new(),
            next_transaction: 0,
            serial: 0,
            next_send: Instant::ORIGIN,
            silence: 0,
            dropped_reported: None,
            counters: Counters::default(),
        }
    }

    /// What was used for nothing so far.
    pub fn counters(&self) -> Counters {
        let (garbage, broken) = self.line.noise();
        Counters { garbage, broken, ..self.counters }
    }

    /// When to wake up if nothing happens.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        if !self.finished.is_empty() {
            return Some(now);
        }
        let jobs = self.jobs.iter().map(|job| job.request.deadline);
        let wire = self.wire.iter().map(|question| question.deadline);
        let due = jobs.chain(wire).chain(self.line.deadline()).min();
        let sendable = if self.up && self.wire.len() < self.profile.in_flight() { self.next_sendable() } else { None };
        due.into_iter().chain(sendable).min()
    }

    /// The step that leaves things as they are, with one ended request, if there is one.
    fn settled(&mut self, consumed: usize, cx: &Context<'_>) -> Step<Work> {
        let mut step = Step { consumed, ..Step::wait(None) };
        if let Some((request, outcome, detail)) = self.finished.pop_front() {
            step.finished = Some((request, outcome));
            step.detail = detail;
        }
        step.deadline = self.deadline(cx.now.monotonic);
        step
    }

    fn opened(&mut self, cx: &mut Context<'_>) -> Step<Work> {
        self.up = true;
        self.line.reset();
        self.wire.clear();
        self.ghosts.clear();
        self.silence = 0;
        // A random first one: answers that a network kept from an earlier connection match nothing.
        let mut octets = [0; 2];
        cx.random.fill(&mut octets);
        self.next_transaction = u16::from_be_bytes(octets);
        self.next_send = cx.now.monotonic;
        self.pump(cx);
        self.settled(0, cx)
    }

    /// Every request ends: reads may be tried again, writes on the wire are unknown.
    fn end_all(&mut self, outcome: Outcome, detail: &str) {
        for job in std::mem::take(&mut self.jobs) {
            let outcome = self.worst(&job, outcome);
            self.finished.push_back((job.request, outcome, detail.to_owned()));
        }
        self.wire.clear();
    }

    fn take_bytes(&mut self, octets: &mut [u8], cx: &mut Context<'_>) -> Step<Work> {
        let mut consumed = 0;
        if !octets.is_empty() {
            self.silence = 0;
        }
        let profile = self.profile.clone();
        while let Line::Tcp = self.line {
            match tcp::next(&octets[consumed..], Direction::Response, &profile.quirks) {
                Ok(Some(adu)) => {
                    consumed += adu.length;
                    self.take_answer(Some(adu.transaction), adu.unit, adu.pdu, cx);
                }
                Ok(None) => break,
                Err(error) => return self.broken(&error, cx),
            }
            // A request is handed back one at a time: what follows is offered again.
            if !self.finished.is_empty() {
                break;
            }
        }
        while !matches!(self.line, Line::Tcp) {
            let wanted = self.wanted();
            let (answer, length) = self.line.take(&octets[consumed..], wanted, &profile, cx.now.monotonic);
            consumed += length;
            let Some(answer) = answer else { break };
            let (transaction, unit, pdu) = (answer.transaction, answer.unit, answer.pdu.to_vec());
            self.take_answer(transaction, unit, &pdu, cx);
        }
        self.pump(cx);
        self.settled(consumed, cx)
    }

    /// What is waited for, where there is only one.
    fn wanted(&self) -> Option<Wanted> {
        let question = self.wire.first()?;
        let unit = (!self.profile.quirks.unit_id_not_echoed).then_some(question.unit);
        Some(Wanted { unit, function: question.function, length: question.length })
    }

    /// The stream cannot be followed any more.
    fn broken(&mut self, error: &ProtocolError, cx: &mut Context<'_>) -> Step<Work> {
        let kind = EventKind::ProtocolViolation;
        cx.batch.event(self.meter, cx.now.wall, kind, 0, format!("{}: {error}", error.code));
        self.end_all(Outcome::Violation, &error.to_string());
        self.up = false;
        let step = self.settled(0, cx);
        Step { transport: Transport::Close, ..step }
    }

    fn wake(&mut self, cx: &mut Context<'_>) -> Step<Work> {
        let now = cx.now.monotonic;
        if self.line.deadline().is_some_and(|at| at <= now) {
            self.take_held(cx);
        }
        if self.wire.iter().any(|question| question.deadline <= now) {
            self.take_held(cx);
            self.expire(cx);
        }
        while let Some(place) = self.jobs.iter().position(|job| job.request.deadline <= now) {
            let job = self.jobs.swap_remove(place);
            let outcome = self.worst(&job, Outcome::TimedOut);
            self.finished.push_back((job.request, outcome, "the deadline passed".into()));
        }
        let dead = self.silence >= self.profile.failures && !self.profile.shared;
        if dead && self.wire.is_empty() && self.up {
            let detail = format!("no sign of life in {} questions", self.silence);
            cx.batch.event(self.meter, cx.now.wall, EventKind::Disconnected, 0, detail.clone());
            self.end_all(Outcome::Interrupted, &detail);
            self.up = false;
            let step = self.settled(0, cx);
            return Step { transport: Transport::Close, ..step };
        }
        self.pump(cx);
        self.settled(0, cx)
    }

    fn take_held(&mut self, cx: &mut Context<'_>) {
        let profile = self.profile.clone();
        while let Some(answer) = self.line.take_held(self.wanted(), &profile) {
            let (unit, pdu) = (answer.unit, answer.pdu.to_vec());
            self.take_answer(None, unit, &pdu, cx);
        }
    }

    fn accept(&mut self, request: Request<Work>, cx: &mut Context<'_>) {
        let now = cx.now.monotonic;
        let unit = request.work.unit;
        if self.jobs.len() >= usize::from(self.profile.requests.max(1)) {
            self.finished.push_back((request, Outcome::Overloaded, "the session holds as many as it may".into()));
            return;
        }
        let rest = self.units.iter().find(|known| known.id == unit).map_or(Instant::ORIGIN, |known| known.rest_until);
        if rest > now {
            let detail = format!("unit {unit} is silent; it is asked again in {} s", rest.since(now).as_secs() + 1);
            self.finished.push_back((request, Outcome::TimedOut, detail));
            return;
        }
        self.serial = self.serial.wrapping_add(1);
        let mut job = Job {
            request,
            serial: self.serial,
            item: 0,
            todo: Vec::new(),
            open: 0,
            octets: Vec::new(),
            refused: Vec::new(),
            narrow: Vec::new(),
            any_refused: false,
            wrote: false,
            not_before: now,
            served: Instant::ORIGIN,
        };
        match self.begin_item(&mut job) {
            true => self.jobs.push(job),
            false => self.finished.push_back((job.request, Outcome::Done, String::new())),
        }
        self.pump(cx);
    }

    fn cancel(&mut self, id: u64) {
        if let Some(place) = self.jobs.iter().position(|job| job.request.id == id) {
            let job = self.jobs.swap_remove(place);
            let outcome = self.worst(&job, Outcome::Cancelled);
            self.finished.push_back((job.request, outcome, String::new()));
        }
    }

    /// A write on the wire without an answer may have been done: that is not known. Nor may a plan be tried again of
    /// which a write was sent.
    fn worst(&self, job: &Job, outcome: Outcome) -> Outcome {
        let lost = job.open > 0 && job.writes();
        if lost || job.wrote && outcome.may_retry() { Outcome::Unknown } else { outcome }
    }
}

impl Job {
    fn item(&self) -> Option<&Item> {
        self.request.work.plan.items.get(usize::from(self.item))
    }

    /// Whether the item in work writes.
    fn writes(&self) -> bool {
        matches!(self.item(), Some(Item::Ask(ask)) if !ask.only_reads())
    }
}

impl Session for HeadEnd {
    type Work = Work;
    type Control = ();

    fn step(&mut self, input: Input<'_, Work, ()>, cx: &mut Context<'_>) -> Step<Work> {
        match input {
            Input::Bytes(octets) => self.take_bytes(octets, cx),
            Input::Request(request) => {
                self.accept(request, cx);
                self.settled(0, cx)
            }
            Input::Deadline => self.wake(cx),
            Input::Opened => self.opened(cx),
            Input::Cancel(id) => {
                self.cancel(id);
                self.pump(cx);
                self.settled(0, cx)
            }
            // Modbus has no question that every device answers: the next one asked is the sign of life.
            Input::Control(()) | Input::Probe => self.settled(0, cx),
            Input::Release => {
                self.end_all(Outcome::Interrupted, "released");
                self.up = false;
                let step = self.settled(0, cx);
                Step { transport: Transport::Close, ..step }
            }
            Input::Closed => {
                self.end_all(Outcome::Interrupted, "the connection was closed");
                self.up = false;
                self.line.reset();
                self.settled(0, cx)
            }
        }
    }

    fn ready(&self) -> bool {
        self.up && self.jobs.len() < usize::from(self.profile.requests.max(1))
    }

    fn associated(&self) -> bool {
        self.up
    }
}
