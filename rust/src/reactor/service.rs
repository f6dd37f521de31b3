//! Serving one peer: its steps, its requests and how they end, its deadlines.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ipss_session::batch::{End, Event};
use ipss_session::{
    Batch, Context, EventKind, Input, MeterId, Outcome, Priority, Request, RequestId, Session, Step, Transport,
};

use super::command::Shared;
use super::entry::{Active, Hold, NEVER, State};
use super::network::Network;
use super::queue::Waiting;
use super::turn::{Engine, Phase};

/// What a step left of a peer's connection.
pub(super) enum Flow {
    /// It goes on.
    Open,
    /// It was closed (or there was none).
    Gone,
    /// The session that greets it knows who it is.
    Identified(Vec<u8>),
}

impl<S: Session, N: Network> Engine<S, N>
where
    S::Work: Clone,
{
    /// Step the session in `slot` once; `None` if there is none that can be stepped.
    pub(super) fn step(&mut self, slot: u32, input: Input<'_, S::Work, S::Control>) -> Option<Step<S::Work>> {
        let Self { entries, network, batch, aside, to_send, now, stats, .. } = self;
        let entry = entries.get_mut(slot).filter(|entry| !entry.dead)?;
        let challenges = entry.challenges();
        // Nothing that a connection says while it proves itself is the meter's word.
        let batch = if challenges { aside } else { batch };
        let (events, mark) = (batch.events.len(), batch.mark());
        let session = &mut entry.session;
        let mut cx = Context { now: *now, random: network.random(), to_send, batch };
        let step = match catch_unwind(AssertUnwindSafe(|| session.step(input, &mut cx))) {
            Ok(step) => step,
            Err(_) => {
                // One bad session harms no other: it is never stepped again, and its requests end.
                entry.dead = true;
                stats.panics += 1;
                batch.rewind(mark);
                let detail = "the session failed and was taken out of service";
                batch.event(entry.meter, now.wall, EventKind::ProtocolViolation, 0, detail);
                Step { transport: Transport::Close, ..Step::wait(None) }
            }
        };
        entry.session_deadline = step.deadline.unwrap_or(NEVER);
        if batch.events.len() > events {
            let rejected = |kind| {
                use EventKind::{AuthenticationFailed, SystemTitleMismatch, WeakerSecurity};
                matches!(kind, AuthenticationFailed | SystemTitleMismatch | WeakerSecurity)
            };
            if let Some(link) = &mut entry.link {
                let any = |kind| batch.events[events..].iter().any(|event: &Event| event.kind == kind);
                link.confused |= any(EventKind::ProtocolViolation);
                link.told |= any(EventKind::Disconnected);
            }
            if batch.events[events..].iter().any(|event| rejected(event.kind)) {
                // On a standing association they are incidents, not the end of it.
                if let Some(link) = entry.link.as_mut().filter(|link| !link.associated) {
                    link.rejected = Some(Outcome::AuthenticationFailed);
                }
            }
        }
        if challenges {
            *batch = Batch::default();
        }
        Some(step)
    }

    /// Step with an input that is not bytes, and do all that follows.
    pub(super) fn tell(&mut self, slot: u32, input: Input<'_, S::Work, S::Control>) {
        let Some(step) = self.step(slot, input) else { return };
        if let Flow::Identified(identity) = self.after(slot, step) {
            self.claim(slot, identity);
        }
        self.settle(slot);
    }

    /// Do what a step asked for, and give the session its next requests while it takes them, so that their octets
    /// leave with the same write.
    pub(super) fn after(&mut self, slot: u32, mut step: Step<S::Work>) -> Flow {
        loop {
            let Step { transport, finished, detail, identified, .. } = step;
            if let Some((request, outcome)) = finished {
                self.finished(slot, request, outcome, detail);
            }
            if let Transport::Serial(settings) = transport {
                self.configure(slot, settings);
            }
            let Some(entry) = self.entries.get_mut(slot) else { return Flow::Gone };
            if transport == Transport::Close {
                self.flush(slot);
                self.close(slot, "the session closed it", false);
                return Flow::Gone;
            }
            if entry.greeter.is_some() {
                if entry.challenges() && entry.session.associated() {
                    self.proved(slot);
                }
                return identified.map_or(Flow::Open, Flow::Identified);
            }
            if entry.associated != entry.session.associated() {
                self.association_changed(slot);
            }
            match self.next_request(slot) {
                Some(waiting) => match self.give(slot, waiting) {
                    Some(next) => step = next,
                    None => return Flow::Gone,
                },
                None => return Flow::Open,
            }
        }
    }

    /// Write what the session wants sent, and set its timer.
    #[inline]
    pub(super) fn settle(&mut self, slot: u32) {
        if !self.to_send.is_empty() {
            self.flush(slot);
        }
        self.arm(slot);
        self.check_batch();
    }

    /// Set the timer of the peer in `slot`, if it has to fire earlier than it would. When it fires too early because
    /// deadlines moved later, which they do with each exchange, it is set again.
    #[inline]
    pub(super) fn arm(&mut self, slot: u32) {
        let Some(entry) = self.entries.get_mut(slot) else { return };
        let deadline = entry.deadline();
        if deadline < entry.armed {
            entry.armed = deadline;
            self.wheel.set(slot, Some(deadline));
        }
    }

    fn association_changed(&mut self, slot: u32) {
        let now = self.now.monotonic;
        let Some(entry) = self.entries.get_mut(slot) else { return };
        entry.associated = entry.session.associated();
        if entry.associated {
            self.stats.associated += 1;
        } else {
            self.stats.associated -= 1;
        }
        let Some(link) = &mut entry.link else { return };
        if entry.associated {
            link.associated = true;
        }
        match (entry.state, entry.associated) {
            (State::Associating, true) => {
                entry.state = State::Open;
                entry.state_deadline = match entry.route.hold {
                    Hold::OnDemand { idle } if entry.route.address.is_some() => now + idle,
                    _ => NEVER,
                };
            }
            (State::Open, false) => {
                entry.state = State::Associating;
                entry.state_deadline = now + self.config.associate_timeout;
            }
            _ => {}
        }
        self.consider_turn(slot);
    }

    /// The request to serve next, if the session takes one now.
    #[inline]
    fn next_request(&mut self, slot: u32) -> Option<Waiting<S::Work>> {
        let now = self.now.monotonic;
        loop {
            let entry = self.entries.get_mut(slot)?;
            if entry.queue.is_empty()
                || !takes_requests(entry.state)
                || entry.link.as_ref().is_none_or(|link| link.yields)
                || !entry.session.ready()
            {
                return None;
            }
            // What needs a permit waits for the association, and until the session holds nothing else, so that its
            // octets are sealed in the step that gets it.
            let next = entry.queue.peek()?;
            if !(entry.session.associated() && entry.active.is_empty()) && guarded(&self.shared, &next.request) {
                return None;
            }
            let waiting = entry.queue.pop()?;
            entry.queue_deadline = entry.queue.deadline();
            self.stats.queued -= 1;
            if waiting.request.deadline <= now {
                self.end(slot, &waiting, Outcome::TimedOut, String::new());
            } else if self.permitted(slot, &waiting) {
                return Some(waiting);
            }
        }
    }

    /// Whether a request may be given now; if not, it has ended.
    #[inline]
    fn permitted(&mut self, slot: u32, waiting: &Waiting<S::Work>) -> bool {
        if !guarded(&self.shared, &waiting.request) {
            return true;
        }
        let Some((guard, entry)) = self.shared.guard.as_ref().zip(self.entries.get(slot)) else { return false };
        let permit = if entry.link.as_ref().is_none_or(|link| !link.unsent.is_empty()) {
            // Behind octets that the line does not take, the command's could leave much later.
            Err("the line takes no octets".to_owned())
        } else {
            // The turn's own moment may be some events old.
            guard.permit(entry.meter, waiting.request.id, &waiting.request.work, self.network.now())
        };
        permit.map_err(|refusal| self.end(slot, waiting, Outcome::Impossible, refusal)).is_ok()
    }

    /// Give the session a request that it said it would take.
    fn give(&mut self, slot: u32, waiting: Waiting<S::Work>) -> Option<Step<S::Work>> {
        let entry = self.entries.get_mut(slot)?;
        let Waiting { request, accepted, age } = waiting;
        if let (Some(link), Some(_)) = (&mut entry.link, entry.line) {
            // Its silence counts from here.
            link.last_received = self.now.monotonic;
            link.served = link.served.saturating_add(1);
        }
        entry.active.add(Active { id: request.id, accepted, deadline: request.deadline, age, cancelled: false });
        self.stats.active += 1;
        self.step(slot, Input::Request(request))
    }

    /// A new request for the peer in `slot`.
    pub(super) fn accept_request(&mut self, slot: u32, waiting: Waiting<S::Work>) {
        let Some(entry) = self.entries.get_mut(slot) else { return };
        if waiting.request.deadline <= self.now.monotonic {
            self.end(slot, &waiting, Outcome::TimedOut, String::new());
        } else if entry.dead {
            self.end(slot, &waiting, Outcome::Impossible, "the session failed and was taken out of service".into());
        } else if entry.queue.is_empty()
            && takes_requests(entry.state)
            && entry.link.as_ref().is_some_and(|link| !link.yields)
            && entry.session.ready()
            && (entry.session.associated() && entry.active.is_empty() || !guarded(&self.shared, &waiting.request))
        {
            if !self.permitted(slot, &waiting) {
                return self.settle(slot);
            }
            if let Some(step) = self.give(slot, waiting) {
                // A greeter takes no requests, so nobody is identified here.
                let _ = self.after(slot, step);
            }
        } else {
            self.enqueue(slot, waiting);
            self.want_connection(slot);
        }
        self.settle(slot);
    }

    fn enqueue(&mut self, slot: u32, waiting: Waiting<S::Work>) {
        let Some(entry) = self.entries.get_mut(slot) else { return };
        let shed = entry.queue.push(waiting, self.config.queue);
        entry.queue_deadline = entry.queue.deadline();
        self.stats.queued += 1;
        if let Some(shed) = shed {
            self.stats.queued -= 1;
            let detail = format!("{} requests wait for the meter already", self.config.queue);
            self.end(slot, &shed, Outcome::Overloaded, detail);
        }
    }

    /// The session gave its request back.
    pub(super) fn finished(&mut self, slot: u32, mut request: Request<S::Work>, outcome: Outcome, detail: String) {
        let now = self.now.monotonic;
        let Some(entry) = self.entries.get_mut(slot) else { return };
        // A session that hands back what it was not given is not believed.
        let Some(active) = entry.active.remove(request.id) else { return };
        self.stats.active -= 1;
        let late = request.deadline <= now;
        let retried = outcome.may_retry() && !late && !active.cancelled && self.phase == Phase::Running;
        if let Some(link) = &mut entry.link {
            match outcome {
                Outcome::Done | Outcome::Refused => {
                    link.useful = true;
                    entry.failures = 0;
                }
                Outcome::AuthenticationFailed if !link.associated => link.rejected = Some(outcome),
                Outcome::Cancelled | Outcome::Impossible | Outcome::CountersExhausted => {}
                _ => link.failed = true,
            }
        }
        if let Hold::OnDemand { idle } = entry.route.hold {
            if entry.state == State::Open && entry.queue.is_empty() && entry.route.address.is_some() {
                entry.state_deadline = now + idle;
            }
        }
        if retried && request.attempts_left > 0 && !entry.dead {
            request.attempts_left -= 1;
            self.stats.retries += 1;
            self.enqueue(slot, Waiting { request, accepted: active.accepted, age: active.age });
            return self.consider_turn(slot);
        }
        let outcome = match outcome {
            Outcome::Cancelled if late && !active.cancelled => Outcome::TimedOut,
            Outcome::Interrupted | Outcome::Unreachable if active.cancelled => Outcome::Cancelled,
            Outcome::Interrupted | Outcome::Unreachable if late => Outcome::TimedOut,
            Outcome::Interrupted | Outcome::Unreachable if self.phase != Phase::Running => Outcome::Cancelled,
            Outcome::Interrupted => Outcome::Unreachable,
            other => other,
        };
        self.end(slot, &Waiting { request, accepted: active.accepted, age: active.age }, outcome, detail);
        self.drain_one(slot);
        self.consider_turn(slot);
    }

    /// Report that a request is over.
    pub(super) fn end(&mut self, slot: u32, waiting: &Waiting<S::Work>, outcome: Outcome, detail: String) {
        let Some(entry) = self.entries.get(slot) else { return };
        self.stats.ended[outcome as usize] += 1;
        self.awaited |= waiting.request.priority >= Priority::OnDemand;
        let duration = self.now.monotonic.since(waiting.accepted);
        self.batch.ends.push(End {
            request: waiting.request.id,
            meter: entry.meter,
            outcome,
            exchanges: waiting.request.exchanges,
            duration_us: duration.as_micros() as u64,
            detail,
        });
    }

    /// Report the end of a request that was never accepted by an entry.
    pub(super) fn refuse(&mut self, meter: MeterId, request: RequestId, outcome: Outcome, detail: &str) {
        self.stats.ended[outcome as usize] += 1;
        let detail = detail.to_owned();
        self.batch.ends.push(End { request, meter, outcome, exchanges: 0, duration_us: 0, detail });
        self.check_batch();
    }

    /// End all requests that wait for the peer in `slot`.
    pub(super) fn end_queue(&mut self, slot: u32, outcome: Outcome, detail: &str) {
        self.end_queued_if(slot, outcome, detail, |_| true);
    }

    fn end_queued_if(&mut self, slot: u32, outcome: Outcome, detail: &str, over: impl Fn(&Waiting<S::Work>) -> bool) {
        let Some(entry) = self.entries.get_mut(slot) else { return };
        let mut queue = std::mem::take(&mut entry.queue);
        queue.take_if(over, |waiting| {
            self.stats.queued -= 1;
            self.end(slot, &waiting, outcome, detail.to_owned());
        });
        self.put_queue(slot, queue);
    }

    /// Each request that waits for the peer in `slot` has spent one try.
    pub(super) fn charge_queue(&mut self, slot: u32, detail: &str) {
        let Some(entry) = self.entries.get_mut(slot) else { return };
        let mut queue = std::mem::take(&mut entry.queue);
        queue.charge(|waiting, outcome| {
            self.stats.queued -= 1;
            self.end(slot, &waiting, outcome, detail.to_owned());
        });
        self.put_queue(slot, queue);
    }

    fn put_queue(&mut self, slot: u32, queue: super::queue::Queue<S::Work>) {
        if let Some(entry) = self.entries.get_mut(slot) {
            entry.queue_deadline = queue.deadline();
            entry.queue = queue;
        }
    }

    /// The owner withdraws a request, if it waits.
    pub(super) fn cancel_waiting(&mut self, meter: MeterId, id: RequestId) {
        let Some(slot) = self.meters.get(&meter).copied() else { return };
        self.end_queued_if(slot, Outcome::Cancelled, "", |waiting| waiting.request.id == id);
        self.settle(slot);
    }

    /// The owner withdraws a request, if the session holds it.
    pub(super) fn cancel_active(&mut self, meter: MeterId, id: RequestId) {
        let Some(slot) = self.meters.get(&meter).copied() else { return };
        let active = self.entries.get_mut(slot).and_then(|entry| entry.active.find(id));
        if let Some(active) = active {
            active.cancelled = true;
            self.tell(slot, Input::Cancel(id));
        }
    }

    /// The owner tells the session something.
    pub(super) fn control(&mut self, meter: MeterId, control: S::Control) {
        if let Some(slot) = self.meters.get(&meter).copied() {
            self.tell(slot, Input::Control(control));
        }
    }

    /// Some deadline of the peer in `slot` has passed.
    pub(super) fn fire(&mut self, slot: u32) {
        let now = self.now.monotonic;
        let Some(entry) = self.entries.get_mut(slot) else { return };
        entry.armed = NEVER;
        if entry.queue_deadline <= now {
            self.end_queued_if(slot, Outcome::TimedOut, "", |waiting| waiting.request.deadline <= now);
        }
        let Some(entry) = self.entries.get_mut(slot) else { return };
        if entry.session_deadline <= now {
            entry.session_deadline = NEVER;
            self.tell(slot, Input::Deadline);
        }
        while let Some(overdue) = self.entries.get(slot).and_then(|entry| entry.active.overdue(now)) {
            // The session's own deadline should have ended it. If it does not let go of it even now, the
            // connection ends, and the request with it.
            self.tell(slot, Input::Cancel(overdue));
            if self.entries.get_mut(slot).is_some_and(|entry| entry.active.find(overdue).is_some()) {
                self.close(slot, "a request outlived its deadline", false);
                break;
            }
        }
        let Some(entry) = self.entries.get_mut(slot) else { return };
        if entry.link.as_ref().is_some_and(|link| link.frame_deadline <= now) {
            self.close(slot, "a frame was not complete in time", false);
        }
        let Some(entry) = self.entries.get_mut(slot) else { return };
        if entry.state_deadline <= now {
            self.state_over(slot);
        }
        self.settle(slot);
    }

    /// While draining: end the association of a peer that has nothing more to do.
    pub(super) fn drain_one(&mut self, slot: u32) {
        let Phase::Draining(_) = self.phase else { return };
        let Some(entry) = self.entries.get_mut(slot) else { return };
        if !entry.active.is_empty() {
            return;
        }
        match entry.state {
            // The state's own deadline does it, so that a session is never stepped from within a step.
            State::Open | State::Associating => entry.state_deadline = self.now.monotonic,
            State::Connecting => self.close(slot, "the reactor is stopping", true),
            State::Idle | State::Waiting | State::BackingOff => {
                (entry.state, entry.state_deadline) = (State::Idle, NEVER);
            }
            State::Releasing => {}
        }
        self.arm(slot);
    }
}

/// Whether a request needs a permit.
#[inline]
fn guarded<S: Session, N: Network>(shared: &Shared<S, N>, request: &Request<S::Work>) -> bool {
    shared.guard.as_ref().is_some_and(|guard| guard.guarded(&request.work))
}

/// Whether a request may be given to a session whose connection stands so.
#[inline]
fn takes_requests(state: State) -> bool {
    matches!(state, State::Associating | State::Open)
}
