//! Several meters behind one connection: each is reached by its address, and nothing of another is taken.

mod common;

use std::time::Duration;

use common::*;
use ipss_dlms::head_end::HeadEnd;
use ipss_dlms::link::hdlc::HdlcConfig;
use ipss_dlms::link::{Framing, GatewayAddress, LinkConfig};
use ipss_dlms::meter::{Concentrator, Fault, Routing};
use ipss_dlms::profile::Profile;
use ipss_session::rig::Rig;
use ipss_session::{EventKind, Input, Outcome, Session};

type Shared = Rig<HeadEnd, Concentrator<Small>>;

fn profile(server: u16) -> Profile {
    Profile { server, shared: true, ..secured() }
}

/// A head-end that asks the one at `server` over `link`, of three whose links are `links`.
fn rig_to(server: u16, link: &LinkConfig, routing: Routing, links: [(u16, LinkConfig); 3], fault: Fault) -> Shared {
    let member = |(at, link): (u16, LinkConfig)| {
        let fault = if at == server { fault } else { Fault::None };
        (at, meter(&profile(at)).with_fault(fault).with_link(&link))
    };
    let far = Concentrator::new(routing, links.map(member));
    let mut rig = Rig::new(head_end(&profile(server)).with_link(link), far, 1, START);
    rig.connect();
    rig
}

fn wrapper(server: u16, fault: Fault) -> Shared {
    let link = LinkConfig::default();
    rig_to(server, &link, Routing::Server, [16, 17, 18].map(|at| (at, LinkConfig::default())), fault)
}

fn asked(rig: &mut Shared) -> Option<Outcome> {
    rig.run(Duration::from_secs(5), 1_000);
    rig.tell_near(Input::Request(request(1, vec![energy()])));
    rig.run(Duration::from_secs(200), 2_000);
    rig.near.finished.last().map(|(_, outcome)| *outcome)
}

#[test]
fn each_meter_answers_at_its_own_access_point_and_the_others_stay_as_they_are() {
    for server in [16, 17, 18] {
        let mut rig = wrapper(server, Fault::None);

        assert_eq!(asked(&mut rig), Some(Outcome::Done));
        let associated: Vec<bool> = rig.far.session.meters().map(Session::associated).collect();
        assert_eq!(associated, [16, 17, 18].map(|at| at == server));
    }
}

#[test]
fn a_station_of_an_hdlc_line_and_a_device_behind_a_gateway_are_reached_alone() {
    let hdlc = |physical| LinkConfig {
        framing: Framing::Hdlc(HdlcConfig { physical: Some(physical), address_size: 4, ..HdlcConfig::default() }),
        gateway: None,
    };
    let gateway = |device: &[u8]| LinkConfig {
        gateway: Some(GatewayAddress { network: 0, device: device.into() }),
        ..LinkConfig::default()
    };
    let stations = [(1, hdlc(100)), (1, hdlc(200)), (1, hdlc(300))];
    let devices = [(1, gateway(b"one")), (1, gateway(b"two")), (1, gateway(b"three"))];
    for (links, index) in [(stations, 1), (devices, 2)] {
        let mut rig = rig_to(1, &links[index].1.clone(), Routing::Everybody, links, Fault::None);

        assert_eq!(asked(&mut rig), Some(Outcome::Done));
        let associated: Vec<bool> = rig.far.session.meters().map(Session::associated).collect();
        assert_eq!(associated, [0, 1, 2].map(|place| place == index));
    }
}

#[test]
fn what_comes_from_another_address_is_passed_over_and_never_an_answer() {
    let mut rig = wrapper(16, Fault::None);
    rig.run(Duration::from_secs(5), 1_000);
    // A late answer of a neighbour, in the clear and with any invoke-id; the line stays.
    for invoke in 0..=0xFF_u8 {
        rig.inject_near(&[0, 1, 0, 17, 0, 1, 0, 9, 0xC4, 1, invoke, 0, 6, 0, 0, 0, 9]);
    }
    assert!(rig.open && rig.near.batch.lines.is_empty());
    let passed = rig.near.batch.events.iter().filter(|event| event.kind == EventKind::UnexpectedAnswer);
    assert_eq!(passed.count(), 256);

    assert_eq!(asked(&mut rig), Some(Outcome::Done));
    assert_eq!(rig.near.batch.lines.len(), 1);
}

#[test]
fn a_meter_that_answers_as_another_gives_no_value_and_breaks_nothing() {
    let mut rig = wrapper(16, Fault::Impostor);

    assert_ne!(asked(&mut rig), Some(Outcome::Done));
    assert!(rig.near.batch.lines.is_empty());
    assert!(rig.near.batch.events.iter().all(|event| event.kind != EventKind::ProtocolViolation));
}

#[test]
fn a_member_that_resets_or_sends_garbage_ends_only_its_own_association() {
    let mut rig = wrapper(17, Fault::Resets(1));
    rig.run(Duration::from_secs(5), 1_000);

    assert!(rig.open, "the connection is the concentrator's");
    assert!(rig.far.session.meters().all(|meter| !meter.associated()));
}
