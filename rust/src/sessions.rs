//! The sessions that the head-end's reactor steps: one type over all protocols and roles of asking.

use std::sync::Arc;

use ipss_dlms::head_end::{self as dlms, Bus, Control, DataReadout, Greeter, HeadEnd};
use ipss_modbus::head_end as modbus;
use ipss_modbus::profile::Profile;
use ipss_session::{Context, EventKind, Input, MeterId, Outcome, Request, Session, Step};

/// What may be asked of a peer.
#[derive(Clone, Debug)]
pub enum Work {
    /// Of a DLMS meter.
    Dlms(dlms::Work),
    /// Of a Modbus unit.
    Modbus(Arc<modbus::Plan>),
}

/// A peer of the head-end.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every peer is of the large one")]
pub enum Peer {
    /// A DLMS meter.
    Dlms(HeadEnd),
    /// An inbound connection whose meter is not known yet. Short-lived, so kept apart from the many.
    Greeter(Box<Greeter>),
    /// A line on which meters push.
    Bus(Box<Bus>),
    /// A meter that is read out as text.
    Readout(Box<DataReadout>),
    /// A Modbus unit.
    Modbus(Box<ModbusUnit>),
    /// A peer whose octets somebody wants to see.
    Traced(Box<Traced>),
}

/// One unit, alone at its address or sharing the connection to a gateway in turns.
#[derive(Debug)]
pub struct ModbusUnit {
    meter: MeterId,
    unit: u8,
    session: modbus::HeadEnd,
}

impl ModbusUnit {
    /// The unit of this number, treated as `profile` says; `shared`: other units are asked over the same connection.
    pub fn new(meter: MeterId, unit: u8, profile: Arc<Profile>, shared: bool) -> Self {
        let profile =
            if shared && !profile.shared { Arc::new(Profile { shared, ..(*profile).clone() }) } else { profile };
        Self { meter, unit, session: modbus::HeadEnd::new(meter, profile) }
    }

    fn step(&mut self, input: Input<'_, Work, Control>, cx: &mut Context<'_>) -> Step<Work> {
        let (meter, unit) = (self.meter, self.unit);
        let input = match input {
            Input::Request(request) => match without_work(request) {
                (request, Work::Modbus(plan)) => {
                    Input::Request(with_work(request, |()| modbus::Work { meter, unit, plan }))
                }
                (request, work) => return refused(request, work, "a Modbus unit was asked for COSEM objects"),
            },
            // Invocation counters: nothing to it.
            Input::Control(_) => Input::Control(()),
            Input::Opened => Input::Opened,
            Input::Bytes(octets) => Input::Bytes(octets),
            Input::Deadline => Input::Deadline,
            Input::Cancel(id) => Input::Cancel(id),
            Input::Probe => Input::Probe,
            Input::Release => Input::Release,
            Input::Closed => Input::Closed,
        };
        with_finished(self.session.step(input, cx), |work| Work::Modbus(work.plan))
    }
}

/// Reports every octet both ways as [`EventKind::Traced`].
#[derive(Debug)]
pub struct Traced {
    /// Whose octets they are.
    pub meter: MeterId,
    /// Its session.
    pub session: Peer,
}

impl Traced {
    fn step(&mut self, mut input: Input<'_, Work, Control>, cx: &mut Context<'_>) -> Step<Work> {
        // The session deciphers in place: what arrived is noted before.
        let received = if let Input::Bytes(octets) = &mut input { octets.to_vec() } else { Vec::new() };
        let before = cx.to_send.len();
        let events = cx.batch.events.len();
        let step = self.session.step(input, cx);
        let sent = cx.to_send[before..].to_vec();
        let mut later = cx.batch.events.split_off(events);
        self.note(0, &received[..step.consumed.min(received.len())], cx);
        cx.batch.events.append(&mut later);
        self.note(1, &sent, cx);
        step
    }

    fn note(&self, number: i64, octets: &[u8], cx: &mut Context<'_>) {
        if !octets.is_empty() {
            let digits: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
            cx.batch.event(self.meter, cx.now.wall, EventKind::Traced, number, digits);
        }
    }
}

impl Session for Peer {
    type Work = Work;
    type Control = Control;

    #[inline]
    fn step(&mut self, input: Input<'_, Work, Control>, cx: &mut Context<'_>) -> Step<Work> {
        match self {
            Self::Dlms(session) => dlms_step(session, input, cx),
            Self::Greeter(session) => dlms_step(&mut **session, input, cx),
            Self::Bus(session) => dlms_step(&mut **session, input, cx),
            Self::Readout(session) => dlms_step(&mut **session, input, cx),
            Self::Modbus(unit) => unit.step(input, cx),
            Self::Traced(traced) => traced.step(input, cx),
        }
    }

    #[inline]
    fn ready(&self) -> bool {
        match self {
            Self::Dlms(session) => session.ready(),
            Self::Greeter(session) => session.ready(),
            Self::Bus(session) => session.ready(),
            Self::Readout(session) => session.ready(),
            Self::Modbus(unit) => unit.session.ready(),
            Self::Traced(traced) => traced.session.ready(),
        }
    }

    #[inline]
    fn associated(&self) -> bool {
        match self {
            Self::Dlms(session) => session.associated(),
            Self::Greeter(session) => session.associated(),
            Self::Bus(session) => session.associated(),
            Self::Readout(session) => session.associated(),
            Self::Modbus(unit) => unit.session.associated(),
            Self::Traced(traced) => traced.session.associated(),
        }
    }

    fn challenger(&mut self) -> Option<Self> {
        match self {
            Self::Dlms(session) => session.challenger().map(Self::Dlms),
            Self::Traced(traced) => traced.session.challenger(),
            // They prove nothing.
            Self::Greeter(_) | Self::Bus(_) | Self::Readout(_) | Self::Modbus(_) => None,
        }
    }
}

#[inline]
fn dlms_step<S>(session: &mut S, input: Input<'_, Work, Control>, cx: &mut Context<'_>) -> Step<Work>
where
    S: Session<Work = dlms::Work, Control = Control>,
{
    let input = match input {
        Input::Bytes(octets) => Input::Bytes(octets),
        Input::Request(request) => match without_work(request) {
            (request, Work::Dlms(work)) => Input::Request(with_work(request, |()| work)),
            (request, work) => return refused(request, work, "a DLMS meter was asked for Modbus registers"),
        },
        Input::Deadline => Input::Deadline,
        Input::Opened => Input::Opened,
        Input::Cancel(id) => Input::Cancel(id),
        Input::Control(control) => Input::Control(control),
        Input::Probe => Input::Probe,
        Input::Release => Input::Release,
        Input::Closed => Input::Closed,
    };
    with_finished(session.step(input, cx), Work::Dlms)
}

#[inline]
fn with_work<A, B>(request: Request<A>, map: impl FnOnce(A) -> B) -> Request<B> {
    let Request { id, deadline, priority, attempts_left, exchanges, work } = request;
    Request { id, deadline, priority, attempts_left, exchanges, work: map(work) }
}

#[inline]
fn without_work<A>(request: Request<A>) -> (Request<()>, A) {
    let Request { id, deadline, priority, attempts_left, exchanges, work } = request;
    (Request { id, deadline, priority, attempts_left, exchanges, work: () }, work)
}

#[inline]
fn with_finished<A, B>(step: Step<A>, map: impl FnOnce(A) -> B) -> Step<B> {
    let Step { consumed, deadline, transport, finished, detail, identified } = step;
    let finished = finished.map(|(request, outcome)| (with_work(request, map), outcome));
    Step { consumed, deadline, transport, finished, detail, identified }
}

/// A request that the session was not even told of. Its deadlines stand: it is woken at once to name them again.
fn refused(request: Request<()>, work: Work, why: &str) -> Step<Work> {
    let request = with_work(request, |()| work);
    let at_once = Some(ipss_session::Instant::ORIGIN);
    Step { finished: Some((request, Outcome::Impossible)), detail: why.into(), ..Step::wait(at_once) }
}
