//! A small meter and a head-end that fits it, for tests of both roles.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::sync::Arc;

use ipss_dlms::axdr::{BufferShape, tag};
use ipss_dlms::cosem::descriptor::CaptureObject;
use ipss_dlms::cosem::{ActionResult, AttributeDescriptor, DataAccessResult, LogicalName, MethodDescriptor, Selection};
use ipss_dlms::head_end::{Attributes, Buffer, HeadEnd, Item, Plan, Wanted, Work};
use ipss_dlms::meter::{Access, Meter, Objects, Settings};
use ipss_dlms::profile::{Authentication, Ciphering, KeyForm, Profile};
use ipss_dlms::security::hls::Exchange;
use ipss_dlms::security::{
    Channel, CounterBlock, Credentials, HighWater, Key, PrivateKey, Protection, Sealer, Suite, SystemTitle,
    VendorMechanism,
};
use ipss_session::rig::Rig;
use ipss_session::{Input, Instant, Now, Outcome, Priority, Request, Session, WallTime};

pub const ENERGY: LogicalName = LogicalName([1, 0, 1, 8, 0, 255]);
pub const EXPORT: LogicalName = LogicalName([1, 0, 2, 8, 0, 255]);
pub const LOAD_PROFILE: LogicalName = LogicalName([1, 0, 99, 1, 0, 255]);
pub const SWITCH: LogicalName = LogicalName([0, 0, 96, 3, 10, 255]);
pub const START: WallTime = WallTime(1_767_225_600_000_000); // 2026-01-01T00:00:00Z
pub const METER_TITLE: SystemTitle = SystemTitle(*b"TSTmeter");
pub const HEAD_END_TITLE: SystemTitle = SystemTitle(*b"TSThead1");

/// A meter with two registers, a year of load profile and a switch.
#[derive(Debug)]
pub struct Small {
    pub energy: u32,
    pub connected: bool,
    pub switched: u32,
}

impl Default for Small {
    fn default() -> Self {
        Self { energy: 123_456, connected: true, switched: 0 }
    }
}

/// The value of a channel in the quarter-hour that begins at `at`.
pub fn load(at: WallTime, channel: i64) -> i64 {
    (at.0 / 900_000_000 * 31 + channel * 7).rem_euclid(5_000)
}

fn quarter_hours(from: WallTime, to: WallTime) -> impl Iterator<Item = WallTime> {
    let first = from.0.div_euclid(900_000_000) + i64::from(from.0.rem_euclid(900_000_000) != 0);
    (first..=to.0.div_euclid(900_000_000)).map(|quarter| WallTime(quarter * 900_000_000))
}

impl Objects for Small {
    fn get(
        &mut self,
        access: Access,
        descriptor: AttributeDescriptor,
        selection: Option<&Selection>,
        _: Now,
        out: &mut Vec<u8>,
    ) -> Result<(), DataAccessResult> {
        match (descriptor.class_id, descriptor.logical_name, descriptor.attribute) {
            (1, LogicalName::LOGICAL_DEVICE_NAME, 2) => out.extend_from_slice(b"\x09\x04TST1"),
            _ if access.client == 16 => return Err(DataAccessResult::ReadWriteDenied),
            (3, ENERGY, 2) => {
                out.push(tag::DOUBLE_LONG_UNSIGNED);
                out.extend_from_slice(&self.energy.to_be_bytes());
            }
            (3, EXPORT, 2) => out.extend_from_slice(&[tag::DOUBLE_LONG_UNSIGNED, 0, 0, 0, 9]),
            (7, LOAD_PROFILE, 2) => {
                let Some(Selection::Range(range)) = selection else { return Err(DataAccessResult::OtherReason) };
                // It has a year of them, whatever is asked for.
                let times: Vec<WallTime> = quarter_hours(range.from, range.to).take(366 * 96).collect();
                out.push(tag::ARRAY);
                ipss_dlms::axdr::write_length(out, times.len());
                for at in times {
                    out.extend_from_slice(&[tag::STRUCTURE, 5, tag::OCTET_STRING, 12]);
                    out.extend_from_slice(&ipss_dlms::axdr::DateTime::from_wall(at, -60).0);
                    for channel in 0..4 {
                        out.push(tag::DOUBLE_LONG_UNSIGNED);
                        out.extend_from_slice(&(load(at, channel) as u32).to_be_bytes());
                    }
                }
            }
            (70, SWITCH, 2) => out.extend_from_slice(&[tag::BOOLEAN, u8::from(self.connected)]),
            _ => return Err(DataAccessResult::ObjectUndefined),
        }
        Ok(())
    }

    fn set(&mut self, _: Access, descriptor: AttributeDescriptor, value: &[u8], _: Now) -> DataAccessResult {
        match (descriptor.logical_name, value) {
            (ENERGY, [tag::DOUBLE_LONG_UNSIGNED, a, b, c, d]) => {
                self.energy = u32::from_be_bytes([*a, *b, *c, *d]);
                DataAccessResult::Success
            }
            (ENERGY, _) => DataAccessResult::TypeUnmatched,
            _ => DataAccessResult::ReadWriteDenied,
        }
    }

    fn act(&mut self, _: Access, method: MethodDescriptor, _: Option<&[u8]>, _: Now, _: &mut Vec<u8>) -> ActionResult {
        match (method.logical_name, method.method) {
            (SWITCH, 1 | 2) => {
                self.connected = method.method == 2;
                self.switched += 1;
                ActionResult::Success
            }
            _ => ActionResult::ObjectUndefined,
        }
    }
}

/// A profile with HLS-GMAC, authenticated and encrypted.
pub fn secured() -> Profile {
    Profile {
        client: 1,
        authentication: Authentication::HlsGmac,
        protection: Protection::Both,
        client_title: HEAD_END_TITLE,
        ..Profile::public()
    }
}

/// Every way in which the profile may pin an association.
pub fn all_profiles() -> Vec<Profile> {
    let mut profiles = vec![
        Profile { client: 1, ..Profile::public() },
        Profile { client: 1, authentication: Authentication::Low, ..Profile::public() },
    ];
    profiles.extend(mechanisms(&Profile { client: 1, ..Profile::public() }));
    for authentication in [Authentication::None, Authentication::Low, Authentication::HlsGmac] {
        for protection in [Protection::Authenticated, Protection::Encrypted, Protection::Both] {
            for ciphering in [Ciphering::ServiceSpecific, Ciphering::General] {
                for dedicated in [false, true] {
                    profiles.push(Profile { authentication, protection, ciphering, dedicated, ..secured() });
                }
            }
        }
    }
    profiles.push(Profile { protection: Protection::None, ..secured() });
    for suite in [Suite::Zero, Suite::One, Suite::Two] {
        for dedicated in [false, true] {
            profiles.extend(mechanisms(&Profile { suite, dedicated, ..secured() }));
        }
    }
    for protection in [Protection::Authenticated, Protection::Encrypted, Protection::Both] {
        for form in [KeyForm::Identified, KeyForm::Wrapped] {
            let ciphering = Ciphering::GeneralCiphering(form);
            profiles.push(Profile { ciphering, protection, ..secured() });
        }
    }
    for suite in [Suite::One, Suite::Two] {
        for (form, signing) in [(KeyForm::Wrapped, true), (KeyForm::OnePass, false), (KeyForm::StaticUnified, false)] {
            let ciphering = Ciphering::GeneralCiphering(form);
            profiles.push(Profile { suite, ciphering, signing, ..secured() });
        }
    }
    profiles.push(Profile { suite: Suite::One, signing: true, ..secured() });
    profiles.push(Profile { suite: Suite::Two, signing: true, dedicated: true, ..secured() });
    profiles
}

/// Every high mechanism that can be had with the rest of `profile`.
pub fn mechanisms(profile: &Profile) -> Vec<Profile> {
    let vendor: Option<Arc<dyn VendorMechanism>> = Some(Arc::new(Backwards));
    let suites: &[Suite] = if profile.is_ciphered() { &[profile.suite] } else { &[Suite::One, Suite::Two] };
    let mut profiles = Vec::new();
    for authentication in Authentication::ALL.into_iter().filter(|authentication| authentication.is_high()) {
        for suite in suites.iter().copied() {
            if authentication != Authentication::HlsEcdsa || suite != Suite::Zero {
                profiles.push(Profile { authentication, suite, vendor: vendor.clone(), ..profile.clone() });
            }
        }
    }
    profiles
}

/// Somebody's procedure for mechanism 2: challenge and secret backwards.
#[derive(Debug)]
pub struct Backwards;

impl VendorMechanism for Backwards {
    fn proof(&self, secret: &[u8], exchange: &Exchange<'_>) -> Option<Vec<u8>> {
        Some(exchange.challenge.iter().chain(secret).rev().copied().collect())
    }
}

pub fn key(seed: u8) -> Key {
    key_of(Suite::Zero, seed)
}

pub fn key_of(suite: Suite, seed: u8) -> Key {
    Key::from_slice(&vec![seed.wrapping_mul(31).wrapping_add(seed); suite.key_octets()]).unwrap()
}

pub fn private_key(suite: Suite, seed: u8) -> Option<PrivateKey> {
    Some(PrivateKey::from_slice(suite, &vec![seed; suite.coordinate_octets()?]).unwrap())
}

/// What the owner of private key `own` needs to talk to the owner of `peer`.
pub fn credentials(suite: Suite, own: u8, peer: u8) -> Credentials {
    let peer = private_key(suite, peer).map(|key| key.public_key());
    let own = private_key(suite, own);
    let master = Some(key_of(suite, 9));
    Credentials { master, signing: own.clone(), agreement: own, peer_signing: peer, peer_agreement: peer }
}

pub fn head_end_channel(encryption: u8, counters: CounterBlock, peer_counter: Option<u32>) -> Channel {
    channel_of(Suite::Zero, encryption, counters, peer_counter)
}

pub fn channel_of(suite: Suite, encryption: u8, counters: CounterBlock, peer_counter: Option<u32>) -> Channel {
    let sealer = Sealer::of_suite(suite, HEAD_END_TITLE, key_of(suite, encryption), counters).unwrap();
    Channel::new(sealer, key_of(suite, 2), METER_TITLE, HighWater::new(peer_counter))
        .with_credentials(credentials(suite, 3, 4))
}

pub fn meter_channel(title: SystemTitle) -> Channel {
    meter_channel_of(Suite::Zero, title)
}

pub fn meter_channel_of(suite: Suite, title: SystemTitle) -> Channel {
    let sealer = Sealer::of_suite(suite, title, key_of(suite, 1), CounterBlock::new(1_000, u32::MAX)).unwrap();
    Channel::new(sealer, key_of(suite, 2), SystemTitle::default(), HighWater::default())
        .with_credentials(credentials(suite, 4, 3))
}

pub fn head_end(profile: &Profile) -> HeadEnd {
    let channel = if profile.needs_keys() {
        Some(channel_of(profile.suite, 1, CounterBlock::new(10, 10_000), None))
    } else {
        let titles = Channel::without_keys(HEAD_END_TITLE, METER_TITLE);
        profile.needs_titles().then(|| titles.with_credentials(credentials(profile.suite, 3, 4)))
    };
    HeadEnd::new(7, Arc::new(profile.clone()), channel, b"secret").unwrap()
}

pub fn meter(profile: &Profile) -> Meter<Small> {
    let settings =
        Settings { clients: vec![profile.clone(), Profile::public()], largest_answer: 400, log_nonces: true };
    Meter::new(7, Arc::new(settings), Small::default(), meter_channel_of(profile.suite, METER_TITLE), b"secret")
}

pub type TestRig = Rig<HeadEnd, Meter<Small>>;

pub fn rig(profile: &Profile) -> TestRig {
    Rig::new(head_end(profile), meter(profile), 1, START)
}

pub fn attribute(class_id: u16, logical_name: LogicalName, attribute: i8) -> AttributeDescriptor {
    AttributeDescriptor { class_id, logical_name, attribute }
}

pub fn read(attributes: &[AttributeDescriptor]) -> Item {
    Item::Attributes(Attributes { layout: 1, attributes: attributes.into(), capture_time: None })
}

pub fn energy() -> Item {
    read(&[attribute(3, ENERGY, 2)])
}

pub fn switch(method: i8) -> Item {
    Item::Action(MethodDescriptor { class_id: 70, logical_name: SWITCH, method }, Some([tag::INTEGER, 0].into()))
}

pub fn load_profile() -> Item {
    let clock = AttributeDescriptor { class_id: 8, logical_name: LogicalName::CLOCK, attribute: 2 };
    Item::Buffer(Buffer {
        layout: 2,
        logical_name: LOAD_PROFILE,
        shape: BufferShape { columns: 5, clock_column: Some(0), status_column: None, capture_period_s: 900 },
        wanted: Wanted::Range {
            restricting_object: CaptureObject { descriptor: clock, data_index: 0 },
            columns: vec![],
        },
    })
}

pub fn request(id: u64, items: Vec<Item>) -> Request<Work> {
    let hours = |count: i64| WallTime(START.0 + count * 3_600_000_000);
    let plan = Arc::new(Plan { items: items.into() });
    Request {
        id,
        deadline: Instant(u64::MAX),
        priority: Priority::OnDemand,
        attempts_left: 0,
        exchanges: 0,
        work: Work { plan, from: hours(0), to: WallTime(hours(24).0 - 1) },
    }
}

/// Connect, ask, and let everything happen; the outcome of the request, if it ended.
pub fn ask(rig: &mut TestRig, items: Vec<Item>) -> Option<Outcome> {
    while !rig.open || !rig.near.session.ready() {
        rig.disconnect();
        rig.connect();
    }
    let id = rig.near.finished.len() as u64 + 1;
    rig.tell_near(Input::Request(request(id, items)));
    rig.run(std::time::Duration::from_secs(100), 2_000);
    rig.near.finished.last().filter(|(request, _)| request.id == id).map(|(_, outcome)| *outcome)
}
