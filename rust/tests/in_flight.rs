//! Several requests at once to one Modbus device through the reactor, on a simulated network, at a device that answers
//! late, twice, in any order, and for others (R31, R44): no answer is ever given to another request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipss_core::reactor::simulated::{Faults, World};
use ipss_core::reactor::{Accepted, Config, NewMeter, Route, SimulatedReactor};
use ipss_core::sessions::{ModbusUnit, Peer, Work};
use ipss_modbus::head_end::{Item, Plan, Read};
use ipss_modbus::profile::Profile;
use ipss_modbus::{Decode, Table};
use ipss_session::rig::{Line, SeededRandom};
use ipss_session::{
    Cell, Context, EventKind, Input, Instant, MeterId, Outcome, Priority, RequestId, Session, Step, WallTime,
};

const ADDRESS: ([u8; 4], u16) = ([10, 0, 0, 1], 502);
const DEVICES: MeterId = 4;
const IN_FLIGHT: u8 = 8;
const ANSWER: Duration = Duration::from_millis(400);

/// Answers each read of one register with the register's own address, when and as often as the dice say.
struct Muddler {
    dice: SeededRandom,
    pool: Vec<Vec<u8>>,
    due: Option<Instant>,
    /// Answers that nobody asked for: second copies, and answers for other units, functions and transactions.
    wrong: Arc<AtomicU64>,
    /// The most questions that came together.
    most_together: Arc<AtomicU64>,
}

impl Muddler {
    fn say(&mut self, cx: &mut Context<'_>) {
        for _ in 0..1 + self.dice.below(10) {
            if self.pool.is_empty() {
                return;
            }
            let place = self.dice.below(self.pool.len() as u64) as usize;
            let mut answer = self.pool[place].clone();
            if self.dice.chance(500) {
                self.pool.swap_remove(place);
            } else {
                self.wrong.fetch_add(1, Ordering::Relaxed);
                match self.dice.below(4) {
                    0 => answer[6] ^= 2,    // another unit
                    1 => answer[0] ^= 0x40, // another transaction
                    2 => answer[7] = 4,     // another function
                    _ => {}                 // and once more later
                }
            }
            cx.to_send.extend(answer);
        }
        let most = 60;
        while self.pool.len() > most {
            self.pool.swap_remove(self.dice.below(most as u64) as usize);
        }
    }
}

impl Session for Muddler {
    type Work = ();
    type Control = ();

    fn step(&mut self, input: Input<'_, (), ()>, cx: &mut Context<'_>) -> Step<()> {
        let mut step = Step::wait(None);
        match input {
            Input::Bytes(octets) => {
                for question in octets.chunks_exact(12) {
                    let mut answer = vec![question[0], question[1], 0, 0, 0, 5, question[6], 3, 2];
                    answer.extend_from_slice(&question[8..10]);
                    self.pool.push(answer);
                    step.consumed += question.len();
                }
                self.most_together.fetch_max(step.consumed as u64 / 12, Ordering::Relaxed);
                self.due = self.due.or(Some(cx.now.monotonic + Duration::from_millis(20)));
            }
            Input::Deadline => {
                self.say(cx);
                let again = Duration::from_millis(10 + self.dice.below(60));
                self.due = (!self.pool.is_empty()).then(|| cx.now.monotonic + again);
            }
            Input::Opened => self.pool.clear(),
            _ => {}
        }
        step.deadline = self.due;
        step
    }

    fn ready(&self) -> bool {
        false
    }

    fn associated(&self) -> bool {
        true
    }
}

fn plan(address: u16) -> Work {
    let read = Read::points(1, &[(Table::Holding, address, 1, Decode::Unsigned)]).unwrap();
    Work::Modbus(Arc::new(Plan { items: [Item::Read(read)].into() }))
}

#[test]
fn of_100_000_late_second_and_swapped_answers_none_is_given_to_another_request() {
    let world = World::new(31, WallTime(1_700_000_000 * WallTime::SECOND));
    world.set_faults(Faults { line: Line { delay: Duration::from_millis(5), ..Line::default() }, ..Faults::default() });
    let config = Config { threads: 1, queue: 64, ..Config::default() };
    let mut head_end = SimulatedReactor::<Peer>::new(config.clone(), world.host());
    let patient = Config { associate_timeout: Duration::from_secs(86_400), connects_per_second: 0, ..config };
    let mut devices = SimulatedReactor::<Muddler>::new(patient, world.host());
    let (wrong, most_together) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let profile = Profile { answer: ANSWER, late: ANSWER, retries: 0, failures: 255, ..Profile::tcp() };
    let profile = Arc::new(profile.concurrent(IN_FLIGHT));
    for meter in 0..DEVICES {
        let address = SocketAddr::from((ADDRESS.0, ADDRESS.1 + meter as u16));
        let accept = Arc::new(move |_, _| Accepted::Meter { meter, newest_wins: true });
        devices.listen(world.listener(devices.network(), address), accept);
        let dice = SeededRandom::new(u64::from(meter));
        let (wrong, most_together) = (wrong.clone(), most_together.clone());
        let session = Muddler { dice, pool: vec![], due: None, wrong, most_together };
        devices.handle().add(vec![NewMeter { meter, session, route: Route::inbound(), identities: vec![] }]).unwrap();
        let session = Peer::Modbus(Box::new(ModbusUnit::new(meter, 1, profile.clone(), false)));
        let route = Route::held(address);
        head_end.handle().add(vec![NewMeter { meter, session, route, identities: vec![] }]).unwrap();
    }

    let (mut asked, mut lines, mut reported) = (0_u64, 0_u64, BTreeMap::new());
    let mut open: BTreeMap<RequestId, MeterId> = BTreeMap::new();
    let mut ended = [0_u64; 16];
    while wrong.load(Ordering::Relaxed) < 100_000 {
        while open.len() < 64 {
            asked += 1;
            let meter = (asked % u64::from(DEVICES)) as MeterId;
            let deadline = world.now().monotonic + Duration::from_secs(5);
            let work = plan((asked % 60_000) as u16);
            head_end.handle().submit(work, &[meter], asked, deadline, Priority::Scheduled, 1).unwrap();
            open.insert(asked, meter);
        }
        head_end.turn();
        devices.turn();
        while let Some(batch) = head_end.handle().take() {
            for (index, line) in batch.lines.iter().enumerate() {
                // The value that was asked for tells whose it is.
                assert_eq!(batch.cells(index), [Cell::Integer((line.request % 60_000) as i64)]);
                assert_eq!(open.get(&line.request), Some(&line.meter), "a line of a request that is not open");
                lines += 1;
            }
            for end in &batch.ends {
                assert_eq!(open.remove(&end.request), Some(end.meter), "ended twice, or never asked");
                ended[end.outcome as usize] += 1;
            }
            for event in batch.events.iter().filter(|event| event.kind == EventKind::UnexpectedAnswer) {
                reported.insert(event.meter, event.number);
            }
        }
        while devices.handle().take().is_some() {}
        let due = [world.next_event(), head_end.next_due(), devices.next_due()];
        let next = due.into_iter().flatten().min().unwrap();
        world.advance(next.max(world.now().monotonic));
    }

    assert!(lines > 20_000, "{lines} of {asked}: {ended:?}");
    assert!(ended[Outcome::TimedOut as usize] > 100, "{ended:?}");
    assert_eq!(ended[Outcome::Done as usize], lines, "a line for each that was answered, and none else");
    assert!(reported.len() == DEVICES as usize && reported.values().sum::<i64>() > 50_000, "{reported:?}");
    assert_eq!(most_together.load(Ordering::Relaxed), u64::from(IN_FLIGHT));
}
