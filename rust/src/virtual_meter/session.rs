//! A whole meter: the model, its keys and the meter-role session, ready for a reactor.

use std::sync::Arc;

use ipss_dlms::meter::{self, Meter, Objects, Settings};
use ipss_dlms::profile::Profile;
use ipss_dlms::security::{Channel, CounterBlock, HighWater, Sealer, SystemTitle};
use ipss_session::{MeterId, WallTime};

use super::random::{between, noise};
use super::{Fault, Fleet, VirtualMeter};

/// 2026-01-01T00:00:00Z in seconds: from here the meters' invocation counters count.
const COUNTERS_SINCE_S: i64 = 1_767_225_600;

/// Invocation counters for each second that has passed: enough that a fleet started again is ahead of what it used
/// before, as long as a meter answers less than this often; at this rate they last until 2030.
const COUNTERS_PER_S: i64 = 32;

impl Fleet {
    /// What the sessions of all meters share. `log_nonces` reports every invocation counter that arrives.
    pub fn settings(&self, log_nonces: bool) -> Arc<Settings> {
        self.settings_at(Profile::public().server, log_nonces)
    }

    /// The same for a meter with this service access point.
    pub fn settings_at(&self, server: u16, log_nonces: bool) -> Arc<Settings> {
        let spec = self.spec();
        let security = spec.security;
        let secured = |client| Profile {
            client,
            server,
            authentication: security.authentication,
            suite: security.suite,
            protection: security.protection,
            ciphering: security.ciphering,
            dedicated: security.dedicated,
            max_pdu: spec.max_pdu,
            ..Profile::public()
        };
        let public = Profile { server, max_pdu: spec.max_pdu, ..Profile::public() };
        let mut clients = vec![secured(1), secured(2), public];
        // Every client may choose short names instead.
        let short: Vec<Profile> = clients.iter().cloned().map(Profile::with_short_names).collect();
        clients.extend(short);
        Arc::new(Settings { clients, largest_answer: usize::from(spec.max_pdu), log_nonces })
    }

    /// The session of meter `index`, for an index below [`Fleet::count`], switched on at `now`.
    ///
    /// Its invocation counters begin at a number that grows with `now`, so that a head-end that remembers an earlier
    /// run of the same fleet does not take it for a replay.
    pub fn session(
        self: &Arc<Self>,
        meter: MeterId,
        index: u32,
        settings: &Arc<Settings>,
        now: WallTime,
    ) -> Meter<VirtualMeter> {
        self.session_of(meter, index, settings, now, self.meter(index))
    }

    /// The same with other objects, such as a meter's that somebody watches.
    pub fn session_of<O: Objects>(
        self: &Arc<Self>,
        meter: MeterId,
        index: u32,
        settings: &Arc<Settings>,
        now: WallTime,
        objects: O,
    ) -> Meter<O> {
        let identity = self.identity(index);
        let counters = CounterBlock::new(first_counter(now), u32::MAX);
        let (key, authentication_key) = self.keys(index);
        let title = SystemTitle(identity.system_title);
        // Keys are made for the suite: it always fits.
        let sealer = Sealer::of_suite(self.spec().security.suite, title, key.clone(), counters.clone())
            .unwrap_or_else(|_| Sealer::new(title, key, counters));
        // The head-end's title is learnt from its AARQ.
        let mut channel = Channel::new(sealer, authentication_key, SystemTitle::default(), HighWater::default());
        if let Some((own, _)) = self.credentials(index) {
            channel = channel.with_credentials(own);
        }
        Meter::new(meter, Arc::clone(settings), objects, channel, &identity.password)
            .with_fault(self.session_fault(index))
    }

    /// The fault of meter `index` as its session commits it; a bad clock is none of the session's.
    pub fn session_fault(&self, index: u32) -> meter::Fault {
        // Associating takes two answers: with these, most meters get some work done between two faults.
        let every = between(noise(self.spec().seed, 9_006, i64::from(index)), 4, 12) as u32;
        match self.fault(index) {
            None | Some(Fault::BadClock | Fault::Lies | Fault::Lags | Fault::Loses) => meter::Fault::None,
            Some(Fault::Reboots) => meter::Fault::Reboots,
            Some(Fault::Slow) => meter::Fault::Slow(self.slowness(index)),
            Some(Fault::Silent) => meter::Fault::Silent,
            Some(Fault::Reset) => meter::Fault::Resets(every),
            Some(Fault::WrongTag) => meter::Fault::WrongTag(every),
            Some(Fault::Replay) => meter::Fault::Replays(every),
            Some(Fault::TruncatedBlock) => meter::Fault::TruncatedBlocks,
            Some(Fault::Plaintext) => meter::Fault::Plaintext,
            Some(Fault::Garbage) => meter::Fault::Garbage,
            Some(Fault::Impostor) => meter::Fault::Impostor,
        }
    }
}

/// The invocation counter that a meter begins with when it is switched on.
fn first_counter(now: WallTime) -> u32 {
    let passed_s = now.0.div_euclid(WallTime::SECOND).saturating_sub(COUNTERS_SINCE_S).max(0);
    u32::try_from(passed_s.saturating_mul(COUNTERS_PER_S)).unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ipss_dlms::axdr::{BufferShape, tag};
    use ipss_dlms::cosem::descriptor::CaptureObject;
    use ipss_dlms::cosem::{AttributeDescriptor, LogicalName, MethodDescriptor};
    use ipss_dlms::head_end::{Attributes, Buffer, Control, HeadEnd, Item, Plan, Wanted, Work};
    use ipss_dlms::profile::Authentication;
    use ipss_dlms::security::setup::{self, KeyId};
    use ipss_dlms::security::{Key, Protection, Suite};
    use ipss_session::rig::Rig;
    use ipss_session::{Input, Outcome, Priority, Request, Session};

    use super::super::{FleetSpec, Security, directory};
    use super::*;

    const HEAD_END: SystemTitle = SystemTitle(*b"TSThead1");

    type FleetRig = Rig<HeadEnd, Meter<VirtualMeter>>;

    fn noon() -> WallTime {
        WallTime(FleetSpec::default().start.0 + (40 * 86_400 + 43_200) * WallTime::SECOND)
    }

    /// A head-end that knows meter 0 of this fleet from its fleet file, connected to it.
    fn rig(spec: FleetSpec) -> FleetRig {
        let fleet = Fleet::new(spec).unwrap();
        let identity = fleet.identity(0);
        let profile = Profile { client_title: HEAD_END, ..fleet.settings(false).clients[0].clone() };
        let (key, authentication_key) = fleet.keys(0);
        let sealer = Sealer::of_suite(profile.suite, HEAD_END, key, CounterBlock::new(500, 5_000)).unwrap();
        let title = SystemTitle(identity.system_title);
        let mut channel = Channel::new(sealer, authentication_key, title, HighWater::default());
        if let Some((_, head_end)) = fleet.credentials(0) {
            channel = channel.with_credentials(head_end);
        }
        let channel = profile.needs_titles().then_some(channel);
        let near = HeadEnd::new(7, Arc::new(profile), channel, &identity.password).unwrap();
        let mut rig = Rig::new(near, fleet.session(7, 0, &fleet.settings(true), noon()), 1, noon());
        rig.connect();
        rig
    }

    fn spec(security: Security) -> FleetSpec {
        FleetSpec { seed: 3, count: 4, drift_ppm: 0, security, ..FleetSpec::default() }
    }

    fn attribute(class_id: u16, logical_name: LogicalName) -> AttributeDescriptor {
        AttributeDescriptor { class_id, logical_name, attribute: 2 }
    }

    fn register() -> Item {
        let attributes = Box::new([attribute(3, directory::IMPORT)]);
        Item::Attributes(Attributes { layout: 1, attributes, capture_time: None })
    }

    fn load_profile() -> Item {
        let clock = attribute(8, LogicalName::CLOCK);
        Item::Buffer(Buffer {
            layout: 2,
            logical_name: LogicalName([1, 0, 99, 1, 0, 255]),
            shape: BufferShape { columns: 6, clock_column: Some(0), status_column: Some(1), capture_period_s: 900 },
            wanted: Wanted::Range {
                restricting_object: CaptureObject { descriptor: clock, data_index: 0 },
                columns: vec![],
            },
        })
    }

    /// Ask for the last day; the outcome if there was one within five minutes.
    fn ask(rig: &mut FleetRig, items: Vec<Item>) -> Option<Outcome> {
        let id = rig.near.finished.len() as u64 + 1;
        let plan = Arc::new(Plan { items: items.into() });
        rig.tell_near(Input::Request(Request {
            id,
            deadline: rig.now.monotonic + Duration::from_secs(300),
            priority: Priority::OnDemand,
            attempts_left: 0,
            exchanges: 0,
            work: Work { plan, from: WallTime(noon().0 - 86_399 * WallTime::SECOND), to: noon() },
        }));
        rig.run(Duration::from_secs(300), 10_000);
        rig.near.finished.last().map(|(_, outcome)| *outcome)
    }

    #[test]
    fn head_end_reads_a_day_of_load_profile_in_every_kind_of_security() {
        for authentication in [Authentication::Low, Authentication::HlsGmac] {
            for protection in [Protection::None, Protection::Authenticated, Protection::Encrypted, Protection::Both] {
                for (dedicated, max_pdu) in [(false, 4_096), (true, 300)] {
                    let dedicated = dedicated && protection != Protection::None;
                    let security = Security { authentication, protection, dedicated, ..Security::default() };
                    let mut rig = rig(FleetSpec { max_pdu, ..spec(security) });

                    let outcome = ask(&mut rig, vec![register(), load_profile()]);

                    assert_eq!(outcome, Some(Outcome::Done), "{security:?}");
                    let batch = &rig.near.batch;
                    assert_eq!(batch.lines.len(), 97);
                    let meter = &rig.far.session.objects;
                    assert_eq!(batch.integers[0], meter.energy(noon()).import());
                    assert_eq!(batch.lines.last().unwrap().capture_time, {
                        let quarter = meter.clock(noon()).0.div_euclid(900_000_000);
                        WallTime(quarter * 900_000_000)
                    });
                }
            }
        }
    }

    #[test]
    fn head_end_reads_a_register_by_every_mechanism_of_every_suite() {
        for suite in [Suite::Zero, Suite::One, Suite::Two] {
            // Who proves nothing may read nothing of a register.
            for authentication in Authentication::ALL.into_iter().skip(1) {
                let security = Security { authentication, suite, ..Security::default() };
                if Fleet::new(spec(security)).is_err() {
                    assert!(authentication == Authentication::HlsVendor || suite == Suite::Zero);
                    continue;
                }
                let mut rig = rig(spec(security));

                assert_eq!(ask(&mut rig, vec![register()]), Some(Outcome::Done), "{security:?}");

                assert_eq!(rig.near.batch.integers, [rig.far.session.objects.energy(noon()).import()]);
            }
        }
    }

    #[test]
    fn meter_shows_the_invocation_counter_that_it_believes() {
        let mut rig = rig(spec(Security::default()));
        let counter = Box::new([attribute(1, LogicalName([0, 0, 43, 1, 0, 255]))]);

        ask(&mut rig, vec![Item::Attributes(Attributes { layout: 1, attributes: counter, capture_time: None })]);

        // Initiate, proof, the action that carries the proof, and the request that asks: 500 to 503.
        assert_eq!(rig.near.batch.integers, [503]);
    }

    #[test]
    fn head_end_switches_supply_off() {
        let mut rig = rig(spec(Security::default()));
        let method = MethodDescriptor { class_id: 70, logical_name: directory::DISCONNECTOR, method: 1 };

        let outcome = ask(&mut rig, vec![Item::Action(method, Some([tag::INTEGER, 0].into()))]);

        assert_eq!(outcome, Some(Outcome::Done));
        let meter = &rig.far.session.objects;
        let later = WallTime(rig.now.wall.0 + 86_400 * WallTime::SECOND);
        assert_eq!(meter.energy(rig.now.wall), meter.energy(later));
    }

    #[test]
    fn key_transfer_under_the_master_key_changes_the_keys_after_the_answer() {
        for suite in [Suite::Zero, Suite::Two] {
            let mut rig = rig(spec(Security { suite, ..Security::default() }));
            let master = rig.far.session.objects.master_key();
            let fresh = |octet| Key::for_suite(suite, &[octet; 32][..master.octets().len()]).unwrap();
            let (encryption, authentication) = (fresh(21), fresh(22));
            let keys = [(KeyId::GlobalUnicast, &encryption), (KeyId::Authentication, &authentication)];
            let transfer = |master: &Key| {
                let method = MethodDescriptor { class_id: 64, logical_name: directory::SECURITY_SETUP, method: 2 };
                Item::Action(method, Some(setup::Method::transfer(master, keys).encode().into()))
            };

            assert_eq!(ask(&mut rig, vec![transfer(&fresh(9))]), Some(Outcome::Refused), "another master key");
            assert_eq!(ask(&mut rig, vec![transfer(&master)]), Some(Outcome::Done));
            let new =
                setup::NewKeys { encryption: Some(fresh(21)), authentication: Some(fresh(22)), ..Default::default() };
            rig.tell_near(Input::Control(Control::Rekey { keys: Box::new(new), next: 0, end: 1_000 }));
            rig.disconnect();
            rig.connect();
            assert_eq!(ask(&mut rig, vec![register()]), Some(Outcome::Done), "{suite:?}");
        }
    }

    #[test]
    fn faults_show_at_the_head_end_and_a_bad_clock_does_not_break_the_line() {
        for fault in Fault::ALL {
            let faults = format!("{}=100%", fault.name()).parse().unwrap();
            // Small blocks, so that the truncated one shows.
            let mut rig = rig(FleetSpec { faults, max_pdu: 300, ..spec(Security::default()) });

            let mut outcomes = Vec::new();
            while rig.near.session.ready() && outcomes.len() < 12 {
                outcomes.push(ask(&mut rig, vec![register(), load_profile()]));
            }

            let fine = !outcomes.is_empty() && outcomes.iter().all(|outcome| *outcome == Some(Outcome::Done));
            // The faults of relay and image show when something is done, and nothing is here.
            let relay = matches!(fault, Fault::Lies | Fault::Lags | Fault::Reboots | Fault::Loses);
            assert_eq!(fine, relay || matches!(fault, Fault::BadClock | Fault::Slow), "{fault:?}: {outcomes:?}");
        }
    }

    #[test]
    fn fleet_started_again_is_ahead_of_its_counters() {
        let later = |seconds: i64| first_counter(WallTime(noon().0 + seconds * WallTime::SECOND));

        assert_eq!(later(60) - later(0), 60 * 32);
        assert_eq!(first_counter(WallTime(0)), 0);
        assert!(first_counter(WallTime(i64::MAX)) < u32::MAX);
    }
}
