//! The last door: tickets, deadlines by two clocks, protected and held meters, the stop switch, the lease, the ceiling.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipss_dlms::head_end::Work;
use ipss_modbus::head_end as modbus;
use ipss_modbus::pdu::RequestPdu;
use ipss_session::{Instant, MeterId, Now, RequestId, WallTime};
use thiserror::Error;

use super::approval::{NoQuorum, Policy, Signature};
use super::effect::{Effect, Kind, Pool, is_critical};
use super::order::{NoOrder, Order};
use crate::reactor::Guard;
use crate::sessions;

/// How far two clocks of the house may differ without doubt.
const SLACK_US: i64 = 5 * WallTime::SECOND;

/// The ceilings' window.
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How many commands may leave within any 24 hours of the monotonic clock: the second line behind the budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What may take supply from a customer.
    pub per_day: usize,
    /// Reconnections.
    pub reconnects_per_day: usize,
    /// Changes of keys, firmware and tariffs.
    pub changes_per_day: usize,
}

/// Why something critical may not go.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The octets are no order.
    #[error(transparent)]
    NoOrder(#[from] NoOrder),
    /// The signatures do not suffice.
    #[error(transparent)]
    NoQuorum(#[from] NoQuorum),
    /// Nobody released it.
    #[error("{0} is for released commands only: use `control`, not a plain write or action")]
    NotReleased(&'static str),
    /// The stop switch is set, or was since the approval.
    #[error("stopped: approve again after `control resume`")]
    Stopped,
    /// Its time is over, by one clock or the other.
    #[error("not-after has passed")]
    Expired,
    /// The wall clock is behind what was seen already.
    #[error(
        "the wall clock is behind what was seen: nothing critical leaves until it is right; if it is right, and was ahead before, two people say so with `control accept-clock`"
    )]
    ClockInDoubt,
    /// Its times do not fit together.
    #[error("written in the future, or to live longer than its kind may")]
    BadTimes,
    /// The meter is on the never-disconnect list.
    #[error("the meter is protected: it is never cut or limited")]
    Protected,
    /// Two have proved to be this meter.
    #[error("held: {0}; look at the meter, then `control clear` it")]
    Held(String),
    /// The store has not confirmed lately that this head-end owns it.
    #[error("it is not known that this head-end still owns its store: nothing critical leaves until it is")]
    NoLease,
    /// No such order, command or meter, or the meter is another device now.
    #[error("{0}")]
    Unknown(&'static str),
    /// The command was armed before.
    #[error("the command was released already: it is never sent twice")]
    Spent,
    /// Too many in 24 hours.
    #[error("the ceiling of {0} commands in 24 hours is reached")]
    Ceiling(usize),
}

/// A ticket for one request: what may be sent under it.
#[derive(Debug)]
pub struct Armed {
    /// The work to submit: it follows from the signed octets.
    pub work: sessions::Work,
    /// The meter.
    pub meter: MeterId,
    /// When the command's life ends on the monotonic clock.
    pub deadline: Instant,
}

/// Everything that decides. Shared by the owner and the reactor's threads.
#[derive(Debug)]
pub struct Gate {
    policy: Policy,
    stopped: AtomicBool,
    /// A clock that goes on while the machine sleeps; with it, nothing leaves without a lease.
    awake: Option<Awake>,
    state: Mutex<State>,
}

/// Time since some moment, the time that the machine slept through included.
pub type Awake = fn() -> Duration;

/// For how long it is certain enough that nobody else owns the store.
#[derive(Clone, Copy, Debug)]
struct Lease {
    /// By the clock that goes on.
    until: Duration,
    /// By the wall clock, which may have been put right after a pause that no other clock has seen.
    wall_until: WallTime,
}

#[derive(Debug, Default)]
struct State {
    limits: Option<Limits>,
    generation: u64,
    orders: HashMap<[u8; 16], Arc<Admitted>>,
    spent: HashSet<[u8; 16]>,
    armed: HashMap<RequestId, Ticket>,
    taken: HashSet<RequestId>,
    devices: HashMap<MeterId, Device>,
    protected: HashSet<MeterId>,
    protected_titles: HashSet<Box<[u8]>>,
    /// Meters that two have proved to be, each with what was seen.
    held: HashMap<MeterId, String>,
    lease: Option<Lease>,
    /// What may be written of a Modbus device without an order.
    registers: HashMap<MeterId, Box<[OpenPart]>>,
    /// What left within a day, by [`Pool`].
    left: [VecDeque<Instant>; 3],
    /// A moment of both clocks that is believed: the wall clock may not be behind it.
    believed: Option<Now>,
}

/// The device behind a meter's number.
#[derive(Debug)]
struct Device {
    title: Box<[u8]>,
    /// The unit identifier of one that speaks Modbus.
    unit: Option<u8>,
}

/// Holding registers that set points use, which the device ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPart {
    /// The first register.
    pub first: u16,
    /// The last register.
    pub last: u16,
    /// The least that may be written to each of them: less is as good as switching off, and takes an order.
    pub least: u16,
}

#[derive(Debug)]
struct Admitted {
    order: Order,
    generation: u64,
    deadline: Instant,
}

#[derive(Debug)]
struct Ticket {
    admitted: Arc<Admitted>,
    target: usize,
}

impl Gate {
    /// A gate under this policy. It starts stopped: [`Gate::resume`] opens it.
    pub fn new(policy: Policy) -> Self {
        Self { policy, stopped: AtomicBool::new(true), awake: None, state: Mutex::default() }
    }

    /// The same for the owner of a store that others may take over: nothing leaves but under a lease.
    #[must_use]
    pub fn leased(self, awake: Awake) -> Self {
        Self { awake: Some(awake), ..self }
    }

    /// The store confirmed that this process owns it; the question was asked at `since` of the clock that goes on, and
    /// the answer holds for `term` from then.
    pub fn lease(&self, since: Duration, term: Duration, now: Now) {
        let Some(awake) = self.awake else { return };
        // The wall clock's part counts from now back by what has passed since the question.
        let left = (since + term).saturating_sub(awake());
        let wall_until = WallTime(now.wall.0.saturating_add(left.as_micros() as i64 + SLACK_US));
        self.lock().lease = Some(Lease { until: since + term, wall_until });
    }

    /// The clock that a lease counts by; zero without one.
    pub fn awake(&self) -> Duration {
        self.awake.map_or(Duration::ZERO, |awake| awake())
    }

    /// Nothing critical goes to this meter until [`Gate::clear`]: two have proved to be it.
    pub fn hold(&self, meter: MeterId, why: &str) {
        self.lock().held.entry(meter).or_insert_with(|| why.to_owned());
    }

    /// A person has settled which one is the meter.
    pub fn clear(&self, meter: MeterId) {
        self.lock().held.remove(&meter);
    }

    /// Whether nothing critical goes to this meter.
    pub fn holds(&self, meter: MeterId) -> bool {
        self.lock().held.contains_key(&meter)
    }

    /// From now on these holding registers of a Modbus device, and no others of it, may be written without an order: set
    /// points that the device ends by itself.
    pub fn open_registers(&self, meter: MeterId, parts: &[OpenPart]) {
        self.lock().registers.insert(meter, parts.into());
    }

    /// How many may leave in 24 hours; none until this is said.
    pub fn limit(&self, limits: Limits) {
        self.lock().limits = Some(limits);
    }

    /// Nothing critical leaves from now on, and what is approved is void. From any thread, at once.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Open at this generation. A generation never falls.
    pub fn resume(&self, generation: u64) {
        let mut state = self.lock();
        state.generation = state.generation.max(generation);
        self.stopped.store(false, Ordering::SeqCst);
    }

    /// Whether nothing critical leaves.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Approvals of earlier generations are void.
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// The device behind a meter's number, from what its session is made of: a system title (for a Modbus unit, which
    /// has none, what stands for it), and a Modbus device's unit.
    pub fn know(&self, meter: MeterId, system_title: &[u8], unit: Option<u8>) {
        self.lock().devices.insert(meter, Device { title: system_title.into(), unit });
    }

    /// Never cut or limit this meter, by its number or by its system title (if it has one).
    pub fn protect(&self, meter: MeterId, system_title: &[u8]) {
        let mut state = self.lock();
        state.protected.insert(meter);
        if !system_title.is_empty() {
            state.protected_titles.insert(system_title.into());
        }
    }

    /// Take a meter off the never-disconnect list.
    pub fn unprotect(&self, meter: MeterId, system_title: &[u8]) {
        let mut state = self.lock();
        state.protected.remove(&meter);
        state.protected_titles.remove(system_title);
    }

    /// How many meters are protected.
    pub fn protected(&self) -> usize {
        self.lock().protected.len()
    }

    /// These commands were sent in an earlier life: they are never sent again.
    pub fn spend(&self, commands: impl IntoIterator<Item = [u8; 16]>) {
        self.lock().spent.extend(commands);
    }

    /// A command that left `age` ago counts against the ceiling. The oldest first.
    pub fn count(&self, pool: Pool, age: Duration, now: Now) {
        let at = Instant(now.monotonic.0.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)));
        self.lock().left[pool as usize].push_back(at);
    }

    /// The wall clock was at least here once: the newest time stamp of the audit log.
    pub fn believe(&self, wall: WallTime, now: Now) {
        let mut state = self.lock();
        let wall = WallTime(wall.0.max(now.wall.0));
        state.believed = Some(Now { monotonic: now.monotonic, wall });
    }

    /// Take an order whose signatures suffice; its commands can be armed from now on.
    ///
    /// # Errors
    /// [`Refusal`]: nothing of it may go.
    pub fn admit(&self, octets: &[u8], signatures: &[Signature], now: Now) -> Result<Order, Refusal> {
        let order = Order::decode(octets)?;
        let mut state = self.lock();
        if self.is_stopped() {
            return Err(Refusal::Stopped);
        }
        self.policy.check(&order, signatures, state.generation)?;
        state.check_clock(now)?;
        let life = order.not_after.0.saturating_sub(order.created.0);
        let longest = order.kind.longest_life().as_micros() as i64;
        if order.created.0 > now.wall.0 + SLACK_US || !(0..=longest).contains(&life) {
            return Err(Refusal::BadTimes);
        }
        let left = order.not_after.0 - now.wall.0;
        if left <= 0 {
            return Err(Refusal::Expired);
        }
        let deadline = now.monotonic + Duration::from_micros(left as u64);
        state.orders.retain(|_, admitted| admitted.deadline > now.monotonic);
        // The deadline of the first admission holds: a clock set back between two gives no more time.
        let deadline = match state.orders.get(&order.id) {
            Some(known) if known.order.hash != order.hash => {
                return Err(Refusal::Unknown("another order has this number"));
            }
            Some(known) => known.deadline.min(deadline),
            None => deadline,
        };
        let admitted = Admitted { order: order.clone(), generation: state.generation, deadline };
        state.orders.insert(order.id, Arc::new(admitted));
        Ok(order)
    }

    /// A ticket for one command of an admitted order, under the number that its request will have. `made` is what the
    /// effect wants made for the meter alone: the wrapped keys of a transfer, else nothing.
    ///
    /// # Errors
    /// [`Refusal`]: it may not go. A command that got a ticket never gets another.
    pub fn arm(
        &self,
        order: [u8; 16],
        command: [u8; 16],
        request: RequestId,
        made: &[u8],
        now: Now,
    ) -> Result<Armed, Refusal> {
        let mut state = self.lock();
        let admitted = state.orders.get(&order).ok_or(Refusal::Unknown("no such order was admitted"))?.clone();
        let target = admitted.order.targets.iter().position(|target| target.command == command);
        let target = target.ok_or(Refusal::Unknown("the order has no such command"))?;
        let Ticket { admitted, target } = {
            let ticket = Ticket { admitted, target };
            self.check(&state, &ticket, now)?;
            ticket
        };
        let work =
            admitted.order.effect.work(made).ok_or(Refusal::Unknown("what was made is not what was approved"))?;
        if !state.spent.insert(command) {
            return Err(Refusal::Spent);
        }
        let meter = admitted.order.targets[target].meter;
        let armed = Armed { work, meter, deadline: admitted.deadline };
        state.armed.insert(request, Ticket { admitted, target });
        Ok(armed)
    }

    /// Whether the request's octets may have left; the ticket is void from now on. For when a request has ended, or
    /// nobody waits for it any more.
    pub fn settle(&self, request: RequestId) -> bool {
        let mut state = self.lock();
        state.armed.remove(&request);
        state.taken.remove(&request)
    }

    fn check(&self, state: &State, ticket: &Ticket, now: Now) -> Result<(), Refusal> {
        let Ticket { admitted, target } = ticket;
        let target = &admitted.order.targets[*target];
        if self.is_stopped() || admitted.generation != state.generation {
            return Err(Refusal::Stopped);
        }
        state.check_clock(now)?;
        if let Some(awake) = self.awake {
            let holds = |lease: Lease| awake() < lease.until && now.wall < lease.wall_until;
            if !state.lease.is_some_and(holds) {
                return Err(Refusal::NoLease);
            }
        }
        if let Some(why) = state.held.get(&target.meter) {
            return Err(Refusal::Held(why.clone()));
        }
        if now.wall > admitted.order.not_after || now.monotonic >= admitted.deadline {
            return Err(Refusal::Expired);
        }
        let known = state.devices.get(&target.meter).ok_or(Refusal::Unknown("the head-end knows no such meter"))?;
        if *known.title != *target.system_title || known.unit != admitted.order.effect.unit() {
            return Err(Refusal::Unknown("the meter's number stands for another device than was approved"));
        }
        let protected =
            state.protected.contains(&target.meter) || state.protected_titles.contains(&target.system_title);
        if protected && admitted.order.kind.may_cut() {
            return Err(Refusal::Protected);
        }
        Ok(())
    }

    /// Spend the ticket of a request that is about to be sealed, if it is what was released.
    fn take(
        &self,
        meter: MeterId,
        request: RequestId,
        kind: &'static str,
        is: impl FnOnce(&Effect) -> bool,
        now: Now,
    ) -> Result<(), Refusal> {
        let mut state = self.lock();
        let Some(ticket) = state.armed.remove(&request) else { return Err(Refusal::NotReleased(kind)) };
        let Admitted { order, .. } = &*ticket.admitted;
        if order.targets[ticket.target].meter != meter || !is(&order.effect) {
            return Err(Refusal::Unknown("the request is not what was released"));
        }
        self.check(&state, &ticket, now)?;
        let pool = order.kind.pool();
        let State { limits, left, taken, .. } = &mut *state;
        let left = &mut left[pool as usize];
        let most = limits.as_ref().map_or(0, |limits| match pool {
            Pool::Cut => limits.per_day,
            Pool::Reconnect => limits.reconnects_per_day,
            Pool::Change => limits.changes_per_day,
        });
        while left.front().is_some_and(|at| now.monotonic.since(*at) >= DAY) {
            left.pop_front();
        }
        if left.len() >= most {
            return Err(Refusal::Ceiling(most));
        }
        left.push_back(now.monotonic);
        taken.insert(request);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock cannot leave it half changed in a way that opens the gate: what opens is set last.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guard<sessions::Work> for Gate {
    #[inline]
    fn guarded(&self, work: &sessions::Work) -> bool {
        match work {
            sessions::Work::Dlms(work) => is_critical(work),
            // Which registers and coils switch something is the device's to know: whatever does not only read.
            sessions::Work::Modbus(plan) => !plan.is_repeatable(),
        }
    }

    fn permit(&self, meter: MeterId, request: RequestId, work: &sessions::Work, now: Now) -> Result<(), String> {
        match work {
            sessions::Work::Dlms(work) => self.permit(meter, request, work, now),
            sessions::Work::Modbus(plan) => {
                let (open, released) = {
                    let state = self.lock();
                    let open = state.registers.get(&meter).cloned().unwrap_or_default();
                    (open, state.armed.contains_key(&request))
                };
                // A released command is one, also where a set point could have written the same.
                if !released && plan.items.iter().all(|item| is_set_point(item, &open)) {
                    return Ok(());
                }
                let taken = self.take(meter, request, "a Modbus write", |effect| effect.is_plan(plan), now);
                taken.map_err(|refusal| refusal.to_string())
            }
        }
    }

    fn doubt(&self, meter: MeterId, why: &str) {
        self.hold(meter, why);
    }
}

/// Whether it reads, or writes holding registers of these parts and no others.
fn is_set_point(item: &modbus::Item, open: &[OpenPart]) -> bool {
    let modbus::Item::Ask(ask) = item else { return true };
    let (first, values): (_, Vec<u16>) = match RequestPdu::decode(ask.pdu()) {
        Ok(RequestPdu::WriteSingleRegister { address, value }) => (address, vec![value]),
        Ok(RequestPdu::WriteMultipleRegisters { address, values }) => (address, values.iter().collect()),
        _ => return ask.only_reads(),
    };
    // One part holds all of it: parts that touch were opened for different things.
    open.iter().any(|part| {
        part.first <= first
            && usize::from(first) + values.len() <= usize::from(part.last) + 1
            && values.iter().all(|value| *value >= part.least)
    })
}

impl Guard<Work> for Gate {
    #[inline]
    fn guarded(&self, work: &Work) -> bool {
        is_critical(work)
    }

    fn permit(&self, meter: MeterId, request: RequestId, work: &Work, now: Now) -> Result<(), String> {
        let kind = work.plan.items.iter().find_map(super::effect::kind_of).map_or("this", Kind::name);
        self.take(meter, request, kind, |effect| effect.is(work), now).map_err(|refusal| refusal.to_string())
    }

    fn doubt(&self, meter: MeterId, why: &str) {
        self.hold(meter, why);
    }
}

impl State {
    /// Closed on doubt: the wall clock may run ahead (then commands expire early), never behind what was believed.
    fn check_clock(&self, now: Now) -> Result<(), Refusal> {
        let Some(believed) = self.believed else { return Err(Refusal::ClockInDoubt) };
        let passed = now.monotonic.since(believed.monotonic).as_micros() as i64;
        if now.wall.0 < believed.wall.0.saturating_add(passed) - SLACK_US {
            return Err(Refusal::ClockInDoubt);
        }
        Ok(())
    }
}
