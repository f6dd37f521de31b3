//! Several meters behind one connection, as a data concentrator shows them: each a logical device with a service access
//! point of its own (wrapper), a physical device behind a gateway, or a station on one HDLC line.

use ipss_session::{Context, Input, Instant, Limits, Outcome, Request, Session, Step, Transport};

use super::{Meter, MeterControl, Objects};
use crate::wrapper::{WpduPlace, next_wpdu_place};

/// The meters, each with its association; one that misbehaves breaks the connection for none of the others.
#[derive(Debug)]
pub struct Concentrator<O> {
    members: Vec<Member<O>>,
    routing: Routing,
}

/// Whom arriving octets are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// The meter whose service access point a WPDU names; a WPDU for another is nobody's.
    Server,
    /// Everybody: the meters' own links pass over what is for others (HDLC with physical addresses, gateway headers).
    Everybody,
}

#[derive(Debug)]
struct Member<O> {
    server: u16,
    meter: Meter<O>,
    /// What it has not consumed yet.
    pending: Vec<u8>,
    deadline: Option<Instant>,
}

impl<O: Objects> Concentrator<O> {
    /// Meters by their service access points.
    pub fn new(routing: Routing, meters: impl IntoIterator<Item = (u16, Meter<O>)>) -> Self {
        let member = |(server, meter)| Member { server, meter, pending: Vec::new(), deadline: None };
        Self { members: meters.into_iter().map(member).collect(), routing }
    }

    /// The meters, in the order in which they were given.
    pub fn meters(&self) -> impl Iterator<Item = &Meter<O>> {
        self.members.iter().map(|member| &member.meter)
    }

    /// Routes whole WPDUs; says how many octets are done with, `None` if what stands there is none.
    fn route(&mut self, octets: &[u8], cx: &mut Context<'_>) -> Option<usize> {
        let mut done = 0;
        loop {
            let place = next_wpdu_place(&octets[done..], &Limits::default()).ok()?;
            let Some(WpduPlace { destination, apdu, .. }) = place else { return Some(done) };
            let wpdu = &octets[done..done + apdu.end];
            if let Some(member) = self.members.iter_mut().find(|member| member.server == destination) {
                member.hear(wpdu, cx);
            }
            done += wpdu.len();
        }
    }
}

impl<O: Objects> Member<O> {
    fn hear(&mut self, octets: &[u8], cx: &mut Context<'_>) {
        self.pending.extend_from_slice(octets);
        let mut pending = std::mem::take(&mut self.pending);
        let mut done = 0;
        while done < pending.len() {
            let step = self.meter.step(Input::Bytes(&mut pending[done..]), cx);
            let consumed = step.consumed.min(pending.len() - done);
            done += consumed;
            if !self.after(&step, cx) || consumed == 0 {
                break;
            }
        }
        // Of what is no frame, nothing is kept that could grow.
        if pending.len() - done <= LARGEST_PENDING {
            self.pending.extend_from_slice(&pending[done..]);
        }
    }

    fn tell(&mut self, input: Input<'_, (), MeterControl>, cx: &mut Context<'_>) {
        let step = self.meter.step(input, cx);
        self.after(&step, cx);
    }

    /// Where a meter alone would close its connection, its association ends. False if it did.
    fn after(&mut self, step: &Step<()>, cx: &mut Context<'_>) -> bool {
        self.deadline = step.deadline;
        if step.transport != Transport::Close {
            return true;
        }
        self.pending.clear();
        for input in [Input::Closed, Input::Opened] {
            self.deadline = self.meter.step(input, cx).deadline;
        }
        false
    }
}

impl<O: Objects> Session for Concentrator<O> {
    type Work = ();
    type Control = MeterControl;

    fn step(&mut self, input: Input<'_, (), MeterControl>, cx: &mut Context<'_>) -> Step<()> {
        let now = cx.now.monotonic;
        let mut step = Step::wait(None);
        match input {
            Input::Bytes(octets) if self.routing == Routing::Server => match self.route(octets, cx) {
                Some(done) => step.consumed = done,
                None => step.transport = Transport::Close,
            },
            Input::Bytes(octets) => {
                self.members.iter_mut().for_each(|member| member.hear(octets, cx));
                step.consumed = octets.len();
            }
            Input::Opened => self.members.iter_mut().for_each(|member| member.tell(Input::Opened, cx)),
            Input::Closed => self.members.iter_mut().for_each(|member| {
                member.pending.clear();
                member.tell(Input::Closed, cx);
            }),
            Input::Deadline => {
                let due = self.members.iter_mut().filter(|member| member.deadline.is_some_and(|at| at <= now));
                due.for_each(|member| member.tell(Input::Deadline, cx));
            }
            Input::Control(control) => {
                self.members.iter_mut().for_each(|member| member.tell(Input::Control(control.clone()), cx));
            }
            Input::Request(request) => {
                let request: Request<()> = request;
                step.finished = Some((request, Outcome::Impossible));
            }
            Input::Release => step.transport = Transport::Close,
            Input::Cancel(_) | Input::Probe => {}
        }
        step.deadline = self.members.iter().filter_map(|member| member.deadline).min();
        step
    }

    fn ready(&self) -> bool {
        false
    }

    fn associated(&self) -> bool {
        self.members.iter().any(|member| member.meter.associated())
    }
}

/// The longest WPDU.
const LARGEST_PENDING: usize = 65_535 + 8;
