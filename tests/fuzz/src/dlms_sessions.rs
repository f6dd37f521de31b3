//! Both roles as sessions. The input is a script: a profile, a link, and what happens on the line between two real
//! ends, in which one of them hears octets that the other never said.

use std::sync::OnceLock;
use std::time::Duration;

use ipss_dlms::apdu::tags::KeyKind;
use ipss_dlms::axdr::BufferShape;
use ipss_dlms::cosem::{EntrySelection, LogicalName, Selection};
use ipss_dlms::hdlc::{Address, encode};
use ipss_dlms::head_end::{Access, AccessList, Buffer, Control, Greeter, Item, Wanted};
use ipss_dlms::link::{Framing, GatewayAddress, HdlcConfig, LinkConfig, ModeE};
use ipss_dlms::meter::MeterControl;
use ipss_dlms::profile::Profile;
use ipss_dlms::security::{Channel, CounterBlock, HighWater, Sealer};
use ipss_dlms::wrapper;
use ipss_session::rig::SeededRandom;
use ipss_session::{Batch, Context, Input, Instant, Limits, Now, Session, Step, Transport};

use crate::common::{self, HEAD_END_TITLE, METER_TITLE, attribute, secured};
use crate::model::{RichRig, method, rig_of, thing, value};
use crate::script::Script;

/// Profiles under which ends behave differently; those without keys first, where octets get furthest.
fn profiles() -> &'static [Profile] {
    static PROFILES: OnceLock<Vec<Profile>> = OnceLock::new();
    PROFILES.get_or_init(|| {
        let plain = Profile { client: 1, ..Profile::public() };
        let mut blocks = plain.clone();
        blocks.quirks.general_block_transfer = true;
        let mut profiles = vec![plain.clone(), plain.clone().with_short_names(), blocks, secured()];
        profiles.push(Profile { authentication: ipss_dlms::profile::Authentication::Low, ..plain });
        profiles.push(secured().with_short_names());
        profiles.push(Profile { dedicated: true, ..secured() });
        profiles.extend(common::all_profiles());
        let limits = Limits { reassembly: 32_768, blocks: 300, ..Limits::default() };
        profiles.into_iter().map(|profile| Profile { limits, ..profile }).collect()
    })
}

fn links() -> [LinkConfig; 5] {
    let hdlc = |opening| Framing::Hdlc(HdlcConfig { opening, ..HdlcConfig::default() });
    let gateway = Some(GatewayAddress { network: 1, device: [7].into() });
    let plain = |framing| LinkConfig { framing, ..LinkConfig::default() };
    [
        plain(Framing::Wrapper),
        plain(hdlc(None)),
        plain(Framing::Datagram),
        LinkConfig { framing: Framing::Wrapper, gateway },
        plain(hdlc(Some(ModeE::default()))),
    ]
}

/// What may be asked of a meter, by its number.
fn items(what: u8) -> Vec<Item> {
    let descriptor = |number| thing(number % 4);
    let buffer = |wanted| {
        let shape = BufferShape { columns: 5, clock_column: Some(0), status_column: Some(1), capture_period_s: 900 };
        Item::Buffer(Buffer { layout: 2, logical_name: common::LOAD_PROFILE, shape, wanted })
    };
    let entries = EntrySelection { from_entry: 1, to_entry: 4, from_column: 1, to_column: 0 };
    let many: Vec<_> = (0..20).map(|_| attribute(3, common::ENERGY, 2)).collect();
    let set = |count: u8, length| {
        Item::Set((0..count).map(|number| (descriptor(number), value(number, length))).collect::<Vec<_>>().into())
    };
    match what % 12 {
        0 => vec![common::energy()],
        1 => vec![common::read(&many), common::switch(1)],
        2 => vec![common::load_profile()],
        3 => vec![buffer(Wanted::All)],
        4 => vec![buffer(Wanted::Entries(entries))],
        5 => vec![set(1, 8), set(3, 300)],
        6 => vec![Item::Action(method(1), Some(value(1, 400)))],
        7 => vec![Item::Actions([(method(1), Some(value(1, 20))), (method(2), None), (method(3), None)].into())],
        8 => vec![Item::Access(Box::new(AccessList {
            items: [
                Access::Get(descriptor(0), Some(Selection::Entry(entries))),
                Access::Set(descriptor(1), value(1, 9)),
                Access::Action(method(1), None),
            ]
            .into(),
            break_on_error: true,
            self_descriptive: what & 0x80 != 0,
        }))],
        9 => vec![Item::Unconfirmed(Box::new(set(1, 4)))],
        10 => vec![common::read(&[attribute(1, LogicalName::LOGICAL_DEVICE_NAME, 2)])],
        _ => vec![set(2, 2_000), common::energy(), common::load_profile()],
    }
}

/// What makes APDUs of an end's peer, with its keys and counters of their own.
struct Forger {
    profile: Profile,
    channel: Channel,
    addresses: (u16, u16),
    hdlc: bool,
    gateway: bool,
}

impl Forger {
    fn new(profile: &Profile, link: &LinkConfig, as_meter: bool) -> Self {
        let suite = profile.suite;
        let (own, peer) = if as_meter { (METER_TITLE, HEAD_END_TITLE) } else { (HEAD_END_TITLE, METER_TITLE) };
        // Above whatever the true peer has used.
        let counters = CounterBlock::new(1_000_000, u32::MAX);
        let sealer = Sealer::of_suite(suite, own, common::key_of(suite, 1), counters).expect("a key of the suite");
        let seeds = if as_meter { (4, 3) } else { (3, 4) };
        let mut channel = Channel::new(sealer, common::key_of(suite, 2), peer, HighWater::default())
            .with_credentials(common::credentials(suite, seeds.0, seeds.1));
        channel.begin();
        let addresses = if as_meter { (profile.server, profile.client) } else { (profile.client, profile.server) };
        let hdlc = matches!(link.framing, Framing::Hdlc(_));
        Self { profile: profile.clone(), channel, addresses, hdlc, gateway: link.gateway.is_some() }
    }

    /// The APDU as the peer would send it.
    fn frame(&mut self, apdu: &[u8], protect: bool, control: u8) -> Vec<u8> {
        let mut apdu = apdu.to_vec();
        if protect && self.profile.is_ciphered() && !apdu.is_empty() {
            let mut random = SeededRandom::new(u64::from(control));
            let form = self.profile.ciphering;
            let _ = self.channel.protect(&self.profile, form, KeyKind::Global, &mut random, &mut apdu, 0);
        }
        let mut out = Vec::new();
        if self.hdlc {
            let (head_end, meter) =
                (Address::head_end(self.profile.client), Address::meter(self.profile.server, None, 1));
            let (to, from) =
                if self.addresses.0 == self.profile.server { (head_end, meter) } else { (meter, head_end) };
            let llc: &[u8] = if to == head_end { &[0xE6, 0xE7, 0] } else { &[0xE6, 0xE6, 0] };
            let information = [llc, &apdu[..apdu.len().min(2_000)]].concat();
            encode(&mut out, control & 1 != 0 && control & 2 != 0, &to, &from, control, &information);
        } else {
            let mark = wrapper::begin(&mut out, self.addresses.0, self.addresses.1);
            if self.gateway {
                out.extend_from_slice(&[if self.addresses.0 == self.profile.server { 0xE7 } else { 0xE6 }, 1, 1, 7]);
            }
            out.extend_from_slice(&apdu);
            let _ = wrapper::finish(&mut out, mark);
        }
        out
    }
}

/// Both ends, and a script of what happens to one of them.
fn play(octets: &[u8], at_head_end: bool) {
    let mut script = Script::new(octets);
    let profile = script.choose(profiles());
    let link = script.choose(&links()).clone();
    let pdu = *script.choose(&[65_535, 128, 400]);
    let mut rig: RichRig = rig_of(profile, &Profile { max_pdu: pdu, ..profile.clone() }, pdu);
    rig.near.session = common::head_end(profile).with_link(&link);
    rig.far.session = {
        let placeholder = rig_of(profile, &Profile { max_pdu: pdu, ..profile.clone() }, pdu).far.session;
        placeholder.with_link(&link)
    };
    let mut forger = Forger::new(profile, &link, at_head_end);
    let (mut requests, mut steps) = (0, 0);
    rig.connect();
    while let Some(what) = script.octet() {
        steps += 1;
        if steps > 200 {
            break;
        }
        let lines = rig.near.batch.lines.len();
        match what % 16 {
            // What both really say.
            0..=2 => drop(rig.run(Duration::from_secs(1), usize::from(what >> 4) + 1)),
            3 => drop(rig.run(Duration::from_secs(40), 200)),
            // What somebody on the line says.
            4 => inject(&mut rig, at_head_end, script.piece()),
            5 => {
                let apdu = script.piece();
                let octets = forger.frame(apdu, false, what >> 4 << 1);
                inject(&mut rig, at_head_end, &octets);
            }
            6..=8 => {
                let control = script.octet().unwrap_or_default();
                let octets = forger.frame(script.piece(), true, control);
                inject(&mut rig, at_head_end, &octets);
            }
            // The last that the peer said, bent or repeated.
            9 => {
                let written = if at_head_end { &rig.far.written } else { &rig.near.written };
                let mut octets = written.last().cloned().unwrap_or_default();
                let (place, bits) = (script.octet().unwrap_or_default(), script.octet().unwrap_or_default());
                let count = octets.len();
                if let Some(octet) = octets.get_mut(usize::from(place) * count / 256) {
                    *octet ^= bits;
                }
                inject(&mut rig, at_head_end, &octets);
            }
            10 => {
                rig.disconnect();
                rig.connect();
            }
            11 | 12 if requests < 8 => {
                requests += 1;
                let question = items(script.octet().unwrap_or_default());
                // Only a session that says so takes a request.
                if rig.open && rig.near.session.ready() {
                    rig.tell_near(Input::Request(common::request(requests, question)));
                }
            }
            13 => rig.tell_near(match what >> 4 {
                0..=3 => Input::Probe,
                4..=7 => Input::Cancel(requests),
                8..=11 => Input::Release,
                _ => Input::Control(Control::Confirm(u32::from(what))),
            }),
            14 => {
                let body = value(what, usize::from(what >> 4) * 40).to_vec();
                rig.tell_far(Input::Control(match what >> 4 & 3 {
                    0 => MeterControl::Notify(body),
                    1 => MeterControl::NotifyConfirmed(body),
                    2 => MeterControl::Event(attribute(3, common::ENERGY, 2), body),
                    _ => MeterControl::Report(vec![(0x0108, body)]),
                }));
            }
            _ => {
                if !rig.open {
                    rig.connect();
                }
            }
        }
        assert!(rig.near.batch.lines.len() - lines <= 70_000, "rows out of all proportion");
    }
    // However it went: within their own deadlines everything ends.
    rig.run(Duration::from_secs(3_600), 3_000);
    rig.disconnect();
    let ended = rig.near.finished.len();
    assert!(ended as u64 <= requests, "a request that ends twice");
}

fn inject(rig: &mut RichRig, at_head_end: bool, octets: &[u8]) {
    if !rig.open {
        rig.connect();
    }
    if at_head_end { rig.inject_near(octets) } else { rig.inject_far(octets) }
}

/// A head-end's session; the odd first octet greets somebody unknown instead.
pub fn head_end(octets: &[u8]) {
    match octets.split_first() {
        Some((0xFF, octets)) => greeter(octets),
        Some(_) => play(octets, true),
        None => {}
    }
}

/// A meter's session.
pub fn meter(octets: &[u8]) {
    play(octets, false);
}

/// The session that finds out who dialled in.
fn greeter(octets: &[u8]) {
    let mut script = Script::new(octets);
    let mut greeter = Greeter::default();
    let (mut random, mut to_send, mut batch) = (SeededRandom::new(1), Vec::new(), Batch::default());
    let mut now = Now { monotonic: Instant(1), wall: common::START };
    let mut step = |input: Input<'_, _, _>, now| -> Step<_> {
        greeter.step(input, &mut Context { now, random: &mut random, to_send: &mut to_send, batch: &mut batch })
    };
    let _ = step(Input::Opened, now);
    let mut pending: Vec<u8> = Vec::new();
    while let Some(what) = script.octet() {
        pending.extend_from_slice(script.piece());
        for _ in 0..=pending.len() {
            if pending.is_empty() {
                break;
            }
            let told = step(Input::Bytes(&mut pending), now);
            if told.identified.is_some() || told.transport == Transport::Close {
                return;
            }
            pending.drain(..told.consumed);
            if told.consumed == 0 {
                break;
            }
        }
        now.monotonic = now.monotonic + Duration::from_millis(u64::from(what) * 200);
        if what & 1 == 1 && step(Input::Deadline, now).transport == Transport::Close {
            return;
        }
    }
}
