//! What the gate lets through and what it does not, against a model written down independently (R14-R18).

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use ipss_dlms::cosem::{AttributeDescriptor, LogicalName};
use ipss_dlms::head_end::{Attributes, Item, Plan, Work};
use ipss_dlms::security::Key;
use ipss_dlms::security::setup::KeyId;
use ipss_modbus::head_end as modbus;
use ipss_modbus::pdu::RequestPdu;
use ipss_session::{Instant, Now, WallTime};

use super::approval::message;
use super::order::digest as order_digest;
use super::*;
use crate::reactor::Guard;
use crate::sessions;

const MINUTE: i64 = 60 * WallTime::SECOND;
const START: i64 = 1_767_268_800 * WallTime::SECOND;
const TITLE: [u8; 8] = *b"MTRtest1";

pub(super) fn at(seconds: i64) -> Now {
    Now {
        monotonic: Instant(1_000_000_000_000 + seconds as u64 * 1_000_000_000),
        wall: WallTime(START + seconds * WallTime::SECOND),
    }
}

fn key(name: &str) -> SigningKey {
    SigningKey::from_bytes(&order_digest(name.as_bytes()))
}

fn person(name: &str, may_request: bool, may_approve: bool) -> Principal {
    Principal { name: name.into(), key: key(name).verifying_key().to_bytes(), may_request, may_approve }
}

fn policy() -> Policy {
    let twin = Principal { name: "twin".into(), ..person("ada", true, true) };
    let principals = vec![
        person("ada", true, true),
        person("bob", true, true),
        person("cyd", false, true),
        person("plugin", true, false),
        twin,
    ];
    Policy { principals, bulk: 25 }
}

pub(super) fn gate() -> Gate {
    let gate = Gate::new(policy());
    gate.limit(Limits { per_day: 1_000, reconnects_per_day: 1_000, changes_per_day: 1_000 });
    gate.believe(WallTime(START), at(0));
    gate.resume(1);
    (0..100).for_each(|meter| gate.know(meter, &TITLE, None));
    gate
}

fn text(out: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 32);
    out.push(0xA0 | text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

fn octets(out: &mut Vec<u8>, octets: &[u8]) {
    out.extend_from_slice(&[0xC4, octets.len() as u8]);
    out.extend_from_slice(octets);
}

fn moment(out: &mut Vec<u8>, moment: i64) {
    out.push(0xCF);
    out.extend_from_slice(&(moment as u64).to_be_bytes());
}

pub(super) fn command(order: u8, meter: u8) -> [u8; 16] {
    let mut number = [order; 16];
    number[15] = meter;
    number
}

/// An order to disconnect (method 1) or reconnect (2) meters 0 to `meters`, for 15 minutes.
fn order(id: u8, method: u8, meters: u8, requester: &str) -> Vec<u8> {
    let mut out = vec![0x9B];
    text(&mut out, "ipss-headend order");
    out.push(1);
    octets(&mut out, &[id; 16]);
    text(&mut out, if method == 1 { "disconnect" } else { "reconnect" });
    out.push(0x95);
    text(&mut out, "action");
    out.push(70);
    octets(&mut out, &[0, 0, 96, 3, 10, 255]);
    out.push(method);
    octets(&mut out, &[15, 0]);
    text(&mut out, "disconnected");
    text(&mut out, "a debt");
    moment(&mut out, START);
    moment(&mut out, START + 15 * MINUTE);
    text(&mut out, requester);
    if meters < 16 {
        out.push(0x90 | meters);
    } else {
        out.extend_from_slice(&[0xDC, 0, meters]);
    }
    for meter in 0..meters {
        out.push(0x93);
        octets(&mut out, &command(id, meter));
        out.push(meter);
        octets(&mut out, &TITLE);
    }
    out
}

fn sign(octets: &[u8], purpose: Purpose, generation: u64, who: &str) -> Signature {
    let hash = order_digest(octets);
    let key = key(if who == "twin" { "ada" } else { who });
    let octets = key.sign(&message(purpose, generation, who, &hash)).to_bytes();
    Signature { purpose, principal: who.into(), generation, octets }
}

/// Signed by its requester and approved by these.
fn signed(octets: &[u8], requester: &str, approvers: &[&str]) -> Vec<Signature> {
    let mut signatures = vec![sign(octets, Purpose::Propose, 0, requester)];
    signatures.extend(approvers.iter().map(|who| sign(octets, Purpose::Approve, 1, who)));
    signatures
}

pub(super) fn admitted(gate: &Gate, id: u8, method: u8) {
    let octets = order(id, method, 3, "ada");
    gate.admit(&octets, &signed(&octets, "ada", &["bob"]), at(1)).unwrap();
}

#[test]
fn r14_released_command_leaves_once_and_with_the_octets_that_were_signed() {
    let gate = gate();
    admitted(&gate, 1, 1);

    let armed = gate.arm([1; 16], command(1, 2), 7, &[], at(2)).unwrap();

    assert_eq!(armed.meter, 2);
    assert_eq!(gate.permit(2, 7, &armed.work, at(3)), Ok(()));
    assert!(gate.permit(2, 7, &armed.work, at(3)).is_err());
    assert!(gate.settle(7) && !gate.settle(7));
    assert_eq!(gate.arm([1; 16], command(1, 2), 8, &[], at(4)).unwrap_err(), Refusal::Spent);
}

#[test]
fn r14_same_command_a_thousand_times_is_one_effect() {
    let gate = gate();
    let mut effects = 0;
    for request in 0..1_000 {
        admitted(&gate, 1, 1);
        if let Ok(armed) = gate.arm([1; 16], command(1, 0), request, &[], at(2)) {
            effects += usize::from(gate.permit(0, request, &armed.work, at(2)).is_ok());
        }
    }

    assert_eq!(effects, 1);
}

#[test]
fn r14_ticket_that_was_settled_is_void() {
    let gate = gate();
    admitted(&gate, 1, 1);
    let armed = gate.arm([1; 16], command(1, 0), 7, &[], at(2)).unwrap();

    assert!(!gate.settle(7));
    assert!(gate.permit(0, 7, &armed.work, at(2)).is_err());
}

#[test]
fn r14_not_after_holds_by_either_clock() {
    let stuck = |monotonic: i64, wall: i64| Now { wall: at(wall).wall, ..at(monotonic) };
    for (now, gone) in [(at(899), false), (at(901), true), (stuck(10, 901), true), (stuck(901, 899), true)] {
        let gate = gate();
        admitted(&gate, 1, 1);
        let armed = gate.arm([1; 16], command(1, 0), 7, &[], at(2)).unwrap();

        assert_eq!(gate.permit(0, 7, &armed.work, now).is_err(), gone, "{now:?}");
    }
}

#[test]
fn r42_clock_that_goes_back_closes_the_gate_and_gives_no_more_time() {
    let gate = gate();
    let octets = order(1, 1, 3, "ada");
    let signatures = signed(&octets, "ada", &["bob"]);

    let back = Now { wall: at(10).wall, ..at(600) };
    assert_eq!(gate.admit(&octets, &signatures, back), Err(Refusal::ClockInDoubt));

    gate.admit(&octets, &signatures, at(600)).unwrap();
    gate.believe(WallTime(START), Now { wall: at(100).wall, ..at(600) });
    gate.admit(&octets, &signatures, Now { wall: at(100).wall, ..at(600) }).unwrap();
    assert_eq!(
        gate.arm([1; 16], command(1, 0), 7, &[], Now { wall: at(500).wall, ..at(1_000) }).unwrap_err(),
        Refusal::Expired
    );
}

#[test]
fn r15_quorum_is_as_written_down() {
    let few = order(1, 1, 25, "ada");
    let many = order(2, 1, 26, "ada");
    let refused = |octets: &[u8], approvers: &[&str]| {
        gate().admit(octets, &signed(octets, "ada", approvers), at(1)).map(drop).unwrap_err()
    };

    assert!(gate().admit(&few, &signed(&few, "ada", &["bob"]), at(1)).is_ok());
    assert!(gate().admit(&many, &signed(&many, "ada", &["bob", "cyd"]), at(1)).is_ok());
    assert!(matches!(refused(&few, &[]), Refusal::NoQuorum(_)));
    assert!(matches!(refused(&many, &["bob"]), Refusal::NoQuorum(_)));
    assert!(matches!(refused(&many, &["bob", "bob"]), Refusal::NoQuorum(_)));
    assert!(matches!(refused(&few, &["ada"]), Refusal::NoQuorum(_)));
    assert!(matches!(refused(&few, &["twin"]), Refusal::NoQuorum(_)));
    assert!(matches!(refused(&few, &["plugin"]), Refusal::NoQuorum(_)));
    assert!(matches!(refused(&few, &["bob", "eve"]), Refusal::NoQuorum(_)));
}

#[test]
fn r15_any_bit_changed_after_approval_is_void() {
    let octets = order(1, 1, 3, "ada");
    let signatures = signed(&octets, "ada", &["bob"]);
    let gate = gate();
    for place in 0..octets.len() * 8 {
        let mut changed = octets.clone();
        changed[place / 8] ^= 1 << (place % 8);
        assert!(gate.admit(&changed, &signatures, at(1)).is_err(), "bit {place}");
    }
    for length in 0..octets.len() {
        assert!(Order::decode(&octets[..length]).is_err());
    }
    let mut longer = octets.clone();
    longer.push(0);
    assert!(Order::decode(&longer).is_err());
}

#[test]
fn r15_longer_encodings_of_the_same_are_no_order() {
    let octets = order(1, 1, 3, "ada");
    // The class id as two octets, and the count of targets as 16 bits: the same order to a lax decoder.
    let class = octets.windows(2).position(|pair| pair == [70, 0xC4]).unwrap();
    let mut wide = octets.clone();
    wide.splice(class..=class, [0xCC, 70]);
    assert!(Order::decode(&wide).is_err());

    let targets = octets.windows(2).position(|pair| pair == [0x93, 0x93]).unwrap_or_else(|| {
        octets.windows(3).position(|three| three[..2] == [0x93, 0x93] || three[1..] == [0x93, 0xC4]).unwrap()
    });
    let mut wide = octets.clone();
    wide.splice(targets..=targets, [0xDC, 0, 3]);
    assert!(Order::decode(&wide).is_err());
}

#[test]
fn r17_stop_voids_tickets_and_approvals() {
    let gate = gate();
    admitted(&gate, 1, 1);
    let armed = gate.arm([1; 16], command(1, 0), 7, &[], at(2)).unwrap();

    gate.stop();
    assert!(gate.permit(0, 7, &armed.work, at(2)).is_err());
    assert_eq!(gate.arm([1; 16], command(1, 1), 8, &[], at(2)).unwrap_err(), Refusal::Stopped);

    gate.resume(2);
    assert_eq!(gate.arm([1; 16], command(1, 1), 9, &[], at(3)).unwrap_err(), Refusal::Stopped);
    let octets = order(1, 1, 3, "ada");
    assert!(gate.admit(&octets, &signed(&octets, "ada", &["bob"]), at(3)).is_err());
    let mut again = signed(&octets, "ada", &[]);
    again.push(sign(&octets, Purpose::Approve, 2, "bob"));
    assert!(gate.admit(&octets, &again, at(3)).is_ok());
}

#[test]
fn r18_protected_meter_is_never_cut_by_number_or_by_device() {
    for by_title in [false, true] {
        let gate = gate();
        gate.protect(if by_title { 9_999 } else { 0 }, if by_title { &TITLE } else { &[] });
        admitted(&gate, 1, 1);
        admitted(&gate, 2, 2);

        assert_eq!(gate.arm([1; 16], command(1, 0), 7, &[], at(2)).unwrap_err(), Refusal::Protected);
        assert!(gate.arm([2; 16], command(2, 0), 8, &[], at(2)).is_ok());
    }
}

#[test]
fn r18_protection_that_comes_after_the_ticket_holds() {
    let gate = gate();
    admitted(&gate, 1, 1);
    let armed = gate.arm([1; 16], command(1, 0), 7, &[], at(2)).unwrap();

    gate.protect(0, &[]);

    assert!(gate.permit(0, 7, &armed.work, at(2)).is_err());
}

#[test]
fn command_for_another_device_or_meter_or_work_is_refused() {
    let gate = gate();
    admitted(&gate, 1, 1);
    let armed = gate.arm([1; 16], command(1, 0), 7, &[], at(2)).unwrap();
    assert!(gate.permit(1, 7, &armed.work, at(2)).is_err());

    let armed = gate.arm([1; 16], command(1, 1), 8, &[], at(2)).unwrap();
    let sessions::Work::Dlms(once) = &armed.work else { panic!("{:?}", armed.work) };
    let mut items = once.plan.items.to_vec();
    items.extend(once.plan.items.to_vec());
    let twice = Work { plan: Plan { items: items.into() }.into(), ..once.clone() };
    assert!(gate.permit(1, 8, &twice, at(2)).is_err());

    gate.know(2, b"MTRother", None);
    assert!(matches!(gate.arm([1; 16], command(1, 2), 9, &[], at(2)), Err(Refusal::Unknown(_))));
}

#[test]
fn ordinary_work_needs_no_ticket_and_critical_work_does() {
    let descriptor =
        AttributeDescriptor { class_id: 70, logical_name: LogicalName([0, 0, 96, 3, 10, 255]), attribute: 2 };
    let item = Item::Attributes(Attributes { layout: 0, attributes: Box::new([descriptor]), capture_time: None });
    let read = Work { plan: Plan { items: Box::new([item]) }.into(), from: WallTime(0), to: WallTime(0) };
    let cut = Order::decode(&order(1, 1, 1, "ada")).unwrap().effect.work(&[]).unwrap();

    assert!(!gate().guarded(&read));
    assert!(gate().guarded(&cut));
    assert!(gate().permit(0, 7, &cut, at(1)).unwrap_err().starts_with("disconnect is for released commands only"));
}

#[test]
fn r16_ceiling_is_exact_and_reconnections_have_their_own() {
    let gate = gate();
    gate.limit(Limits { per_day: 5, reconnects_per_day: 2, changes_per_day: 1 });
    gate.count(Pool::Cut, Duration::from_secs(23 * 3_600), at(1));
    let mut left = [0, 0];
    for id in 1..8 {
        let method = 1 + id % 2;
        admitted(&gate, id, method);
        for meter in 0..3 {
            let request = u64::from(id) * 10 + u64::from(meter);
            let armed = gate.arm([id; 16], command(id, meter), request, &[], at(2)).unwrap();
            left[usize::from(method - 1)] += usize::from(gate.permit(armed.meter, request, &armed.work, at(3)).is_ok());
        }
    }

    assert_eq!(left, [4, 2]);
}

/// R15: 10^5 random sequences of proposals, approvals by anybody, stops, protections and releases; the gate against
/// sets that say who approved what.
#[test]
fn r15_hundred_thousand_random_steps_release_nothing_without_quorum() {
    let mut seed = 0x1234_5678_9ABC_DEF0_u64;
    let mut below = |bound: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % bound
    };
    let orders: Vec<Vec<u8>> =
        (0..6).map(|id| order(id, 1, if id < 3 { 3 } else { 26 }, ["ada", "bob"][id as usize % 2])).collect();
    let people = ["ada", "bob", "cyd", "plugin", "twin"];
    // Signatures are made once: the steps choose among them.
    let signature = |id: usize, purpose, generation, who: usize| sign(&orders[id], purpose, generation, people[who]);
    let mut made = std::collections::HashMap::new();
    let (mut released, mut steps) = (0, 0);
    while steps < 100_000 {
        let gate = gate();
        let mut given: Vec<Vec<Signature>> = vec![Vec::new(); orders.len()];
        let mut model: Vec<std::collections::BTreeSet<usize>> = vec![Default::default(); orders.len()];
        let (mut proposed, mut bad) = (vec![false; orders.len()], vec![false; orders.len()]);
        let (mut generation, mut stopped) = (1_u64, false);
        let mut admitted_at = vec![0_u64; orders.len()];
        let mut sent = std::collections::HashSet::new();
        for request in 0..50 {
            steps += 1;
            let id = below(orders.len() as u64) as usize;
            match below(8) {
                0 => {
                    let requester = if id % 2 == 0 { 0 } else { 1 };
                    given[id].push(
                        made.entry((id, 0, 0, requester))
                            .or_insert_with(|| signature(id, Purpose::Propose, 0, requester))
                            .clone(),
                    );
                    proposed[id] = true;
                }
                1..=4 => {
                    // Mostly somebody else, now and then oneself, a plugin, or one's own second name.
                    let requester = id % 2;
                    let who = if below(12) == 0 { below(5) as usize } else { [1 - requester, 2][below(2) as usize] };
                    let key = (id, 1, generation, who);
                    given[id].push(
                        made.entry(key).or_insert_with(|| signature(id, Purpose::Approve, generation, who)).clone(),
                    );
                    let own = who == requester || (requester == 0 && who == 4);
                    if who == 3 || who == requester {
                        bad[id] = true;
                    } else if own {
                        model[id].insert(100);
                    } else {
                        model[id].insert(if who == 4 { 0 } else { who });
                    }
                }
                5 if below(4) == 0 => {
                    gate.stop();
                    stopped = true;
                }
                5 if stopped => {
                    generation += 1;
                    gate.resume(generation);
                    stopped = false;
                    model.iter_mut().for_each(|approved| approved.clear());
                }
                _ => {
                    let needed = if id < 3 { 1 } else { 2 };
                    let quorum = proposed[id] && !bad[id] && !model[id].contains(&100) && model[id].len() >= needed;
                    let admitted = gate.admit(&orders[id], &given[id], at(1));
                    assert_eq!(admitted.is_ok(), quorum && !stopped, "{id} {:?} {admitted:?}", model[id]);
                    if admitted.is_ok() {
                        admitted_at[id] = generation;
                    }
                    let meter = below(3) as u8;
                    let armed = gate.arm([id as u8; 16], command(id as u8, meter), request, &[], at(2));
                    if let Ok(armed) = armed {
                        assert!(admitted_at[id] == generation && !stopped && sent.insert((id, meter)));
                        assert!(gate.permit(armed.meter, request, &armed.work, at(2)).is_ok());
                        released += 1;
                    }
                }
            }
        }
    }
    assert!(released > 1_000, "{released}");
}

/// Writes of a Modbus device pass for its opened registers alone, whole, and for no other device's.
#[test]
fn only_opened_registers_are_written_without_an_order() {
    let gate = gate();
    let part = |first, last, least| OpenPart { first, last, least };
    gate.open_registers(7, &[part(100, 102, 0), part(103, 110, 0), part(200, 200, 10)]);
    let permitted = |meter, pdus: &[&[u8]]| {
        let work = plan(pdus);
        let guard: &dyn Guard<sessions::Work> = &gate;
        assert!(guard.guarded(&work));
        guard.permit(meter, 1, &work, at(1)).is_ok()
    };
    let one = |address: u8| [6, 0, address, 0, 1];
    let two = |address: u8| [16, 0, address, 0, 2, 4, 0, 1, 0, 2];

    assert!(permitted(7, &[&one(100)]));
    assert!(permitted(7, &[&two(101), &one(110)]));
    // Across two parts, before them, behind them, another device's, and what is no plain write of registers.
    assert!(!permitted(7, &[&two(102)]));
    assert!(!permitted(7, &[&one(99)]));
    assert!(!permitted(7, &[&two(110)]));
    assert!(!permitted(7, &[&one(100), &one(111)]));
    assert!(!permitted(8, &[&one(100)]));
    assert!(!permitted(7, &[&[5, 0, 100, 0xFF, 0]]));
    assert!(!permitted(7, &[&[22, 0, 100, 0, 1, 0, 1]]));
    // A limit of 10 or more is a set point; less is as good as switching off.
    assert!(permitted(7, &[&[6, 0, 200, 0, 10]]));
    assert!(!permitted(7, &[&[6, 0, 200, 0, 9]]));
    assert!(!permitted(7, &[&[16, 0, 200, 0, 1, 2, 0, 0]]));
}

/// An order to write a Modbus unit, for meter 50: unit, address, function, values as its effect says them.
fn register_order(id: u8, kind: &str, unit: u8, address: u8, function: u8, values: &[u8]) -> Vec<u8> {
    let mut out = vec![0x9B];
    text(&mut out, "ipss-headend order");
    out.push(1);
    octets(&mut out, &[id; 16]);
    text(&mut out, kind);
    out.push(0x95);
    text(&mut out, "modbus");
    out.extend_from_slice(&[unit, address, function]);
    octets(&mut out, values);
    text(&mut out, "connect 0 for 600 s");
    text(&mut out, "works on the feeder");
    moment(&mut out, START);
    moment(&mut out, START + 15 * MINUTE);
    text(&mut out, "ada");
    out.extend_from_slice(&[0x91, 0x93]);
    octets(&mut out, &command(id, 50));
    out.push(50);
    octets(&mut out, &TITLE);
    out
}

fn unit_gate() -> Gate {
    let gate = gate();
    gate.know(50, &TITLE, Some(3));
    gate
}

fn plan(pdus: &[&[u8]]) -> sessions::Work {
    let item = |pdu: &&[u8]| modbus::Item::ask(&RequestPdu::decode(pdu).unwrap()).unwrap();
    sessions::Work::Modbus(Arc::new(modbus::Plan { items: pdus.iter().map(item).collect() }))
}

/// R44: the write that leaves is the one that was signed: its unit, its address, its values, once.
#[test]
fn r44_register_write_leaves_once_as_it_was_signed_and_in_no_other_form() {
    const SIGNED: &[u8] = &[16, 0, 101, 0, 2, 4, 2, 88, 0, 0];
    let wrong: [&[&[u8]]; 6] = [
        &[&[16, 0, 102, 0, 2, 4, 2, 88, 0, 0]],
        &[&[16, 0, 101, 0, 2, 4, 2, 88, 0, 1]],
        &[&[16, 0, 101, 0, 1, 2, 2, 88]],
        &[&[6, 0, 102, 0, 0]],
        &[SIGNED, SIGNED],
        &[],
    ];
    let released = |gate: &Gate| {
        let octets = register_order(1, "der-disconnect", 3, 101, 16, &SIGNED[6..]);
        gate.admit(&octets, &signed(&octets, "ada", &["bob"]), at(1)).unwrap();
        gate.arm([1; 16], command(1, 50), 7, &[], at(2))
    };
    let permit =
        |gate: &Gate, meter, work: &sessions::Work| Guard::<sessions::Work>::permit(gate, meter, 7, work, at(3));

    let gate = unit_gate();
    assert!(permit(&gate, 50, &plan(&[SIGNED])).unwrap_err().contains("for released commands only"));
    let armed = released(&gate).unwrap();
    assert!(matches!(&armed.work, sessions::Work::Modbus(plan) if plan.items.len() == 1));
    assert_eq!(permit(&gate, 50, &armed.work), Ok(()));
    assert!(permit(&gate, 50, &armed.work).is_err());
    assert!(gate.settle(7));
    assert_eq!(released(&gate).unwrap_err(), Refusal::Spent);

    for pdus in wrong.into_iter().filter(|pdus| !pdus.is_empty()) {
        let gate = unit_gate();
        released(&gate).unwrap();
        assert!(permit(&gate, 50, &plan(pdus)).is_err(), "{pdus:?}");
    }
    let gate = unit_gate();
    released(&gate).unwrap();
    assert!(permit(&gate, 51, &plan(&[SIGNED])).is_err());
    // Where a set point could write the same, the command is still one: sent, and told to have been.
    let gate = unit_gate();
    gate.open_registers(50, &[OpenPart { first: 101, last: 102, least: 0 }]);
    let armed = released(&gate).unwrap();
    assert_eq!(permit(&gate, 50, &armed.work), Ok(()));
    assert!(gate.settle(7));
    // Another unit behind the number, another device, or a meter with objects.
    for (title, unit) in [(&TITLE[..], Some(4)), (b"MTRother", Some(3)), (&TITLE[..], None)] {
        let gate = unit_gate();
        gate.know(50, title, unit);
        assert!(matches!(released(&gate), Err(Refusal::Unknown(_))));
    }
}

#[test]
fn r44_what_is_no_plain_write_of_a_unit_is_no_order() {
    let decoded = |kind, unit, address, function, values: &[u8]| {
        Order::decode(&register_order(1, kind, unit, address, function, values))
    };

    assert_eq!(decoded("der-limit", 3, 100, 16, &[0, 0]).unwrap().kind, Kind::DerLimit);
    assert_eq!(decoded("der-reconnect", 3, 100, 6, &[0, 1]).unwrap().kind, Kind::DerReconnect);
    assert_eq!(decoded("der-disconnect", 3, 100, 5, &[0xFF, 0]).unwrap().kind, Kind::DerDisconnect);
    // A name that only objects have, a name of nobody's, unit 0 (all), and what is no such write.
    for (kind, unit, function, values) in [
        ("disconnect", 3, 16, &[0, 0][..]),
        ("reconnect", 3, 16, &[0, 0]),
        ("der", 3, 16, &[0, 0]),
        ("der-limit", 0, 16, &[0, 0]),
        ("der-limit", 3, 16, &[0]),
        ("der-limit", 3, 16, &[]),
        ("der-limit", 3, 6, &[0, 0, 0, 0]),
        ("der-limit", 3, 5, &[0, 1]),
        ("der-limit", 3, 3, &[0, 1]),
        ("der-limit", 3, 22, &[0, 0, 0, 0]),
    ] {
        assert!(decoded(kind, unit, 100, function, values).is_err(), "{kind} {unit} {function} {values:?}");
    }
    // And no order for objects goes under a name of registers.
    let mut octets = order(1, 1, 1, "ada");
    let place = octets.windows(10).position(|part| part == b"disconnect").unwrap();
    octets.splice(place - 1..place + 10, [&[0xAE][..], b"der-disconnect"].concat());
    assert!(Order::decode(&octets).is_err());
}

#[test]
fn r44_protected_device_gets_no_write_whatever_its_order_calls_itself() {
    for (id, kind) in [(1, "der-disconnect"), (2, "der-reconnect"), (3, "der-limit")] {
        let gate = unit_gate();
        gate.protect(50, &[]);
        let octets = register_order(id, kind, 3, 101, 6, &[0, 1]);
        gate.admit(&octets, &signed(&octets, "ada", &["bob"]), at(1)).unwrap();

        assert_eq!(gate.arm([id; 16], command(id, 50), 7, &[], at(2)).unwrap_err(), Refusal::Protected);
    }
}

/// An order to change both keys of meters 0 to `meters`, that lives for `life` microseconds.
fn change(id: u8, keys: &[u8], meters: u8, life: i64) -> Vec<u8> {
    let mut out = vec![0x9B];
    text(&mut out, "ipss-headend order");
    out.push(1);
    octets(&mut out, &[id; 16]);
    text(&mut out, "key-change");
    out.push(0x95);
    text(&mut out, "key-transfer");
    out.push(64);
    octets(&mut out, &[0, 0, 43, 0, 0, 255]);
    out.push(2);
    octets(&mut out, keys);
    text(&mut out, "rekeyed");
    text(&mut out, "yearly");
    moment(&mut out, START);
    moment(&mut out, START + life);
    text(&mut out, "ada");
    out.push(0x90 | meters);
    for meter in 0..meters {
        out.push(0x93);
        octets(&mut out, &command(id, meter));
        out.push(meter);
        octets(&mut out, &TITLE);
    }
    out
}

fn wrapped(ids: &[KeyId]) -> Vec<u8> {
    let (master, fresh) = (Key::Aes128([9; 16]), Key::Aes128([4; 16]));
    effect::transfer(&master, ids.iter().map(|id| (*id, &fresh)))
}

const BOTH: [KeyId; 2] = [KeyId::GlobalUnicast, KeyId::Authentication];

#[test]
fn approved_key_change_sends_wrapped_keys_of_the_kinds_that_were_signed_and_nothing_else() {
    let gate = gate();
    let octets = change(1, &[0, 2], 3, 15 * MINUTE);
    gate.admit(&octets, &signed(&octets, "ada", &["bob"]), at(1)).unwrap();
    let mut other = wrapped(&BOTH);
    other.pop();

    for made in [vec![], wrapped(&BOTH[..1]), wrapped(&[KeyId::Authentication, KeyId::GlobalUnicast]), other] {
        let refused = gate.arm([1; 16], command(1, 0), 7, &made, at(2)).unwrap_err();
        assert!(matches!(refused, Refusal::Unknown(_)), "{refused}");
    }
    let armed = gate.arm([1; 16], command(1, 0), 7, &wrapped(&BOTH), at(2)).unwrap();
    // Other keys of the same kinds are what the meter's own change would be, so they pass; another service does not.
    let cut = Order::decode(&order(2, 1, 1, "ada")).unwrap().effect.work(&[]).unwrap();
    assert!(gate.permit(0, 7, &cut, at(3)).is_err());
    let again = gate.arm([1; 16], command(1, 1), 8, &wrapped(&BOTH), at(3)).unwrap();
    assert_eq!(gate.permit(1, 8, &again.work, at(3)), Ok(()));
    assert_eq!(armed.meter, 0);
}

#[test]
fn new_master_key_goes_with_its_proof_in_one_request_and_with_nothing_else() {
    let gate = gate();
    let octets = change(1, &[3], 3, 15 * MINUTE);
    gate.admit(&octets, &signed(&octets, "ada", &["bob"]), at(1)).unwrap();
    let (old, new) = (Key::Aes128([9; 16]), Key::Aes128([4; 16]));
    let made = effect::change_of_master(&old, &new);
    let one = effect::transfer(&old, [(KeyId::Master, &new)]);
    let with_more = [&one[..], &wrapped(&BOTH[..1])].concat();

    for made in [vec![], one, made[..made.len() - 1].to_vec(), with_more, [&made[..], &made[..]].concat()] {
        let refused = gate.arm([1; 16], command(1, 0), 7, &made, at(2)).unwrap_err();
        assert!(matches!(refused, Refusal::Unknown(_)), "{refused}");
    }
    let armed = gate.arm([1; 16], command(1, 0), 7, &made, at(2)).unwrap();
    let sessions::Work::Dlms(work) = &armed.work else { panic!("no work of a meter") };
    assert_eq!(work.plan.items.len(), 2);
    let half = sessions::Work::Dlms(Work {
        plan: Arc::new(Plan { items: Box::new([work.plan.items[1].clone()]) }),
        ..work.clone()
    });
    assert!(gate.permit(0, 7, &half, at(3)).is_err());
    let again = gate.arm([1; 16], command(1, 1), 8, &made, at(3)).unwrap();
    assert_eq!(gate.permit(1, 8, &again.work, at(3)), Ok(()));
}

#[test]
fn key_change_counts_against_a_ceiling_of_its_own_and_may_live_for_a_month() {
    let gate = gate();
    gate.limit(Limits { per_day: 0, reconnects_per_day: 0, changes_per_day: 1 });
    let month = change(1, &[0, 2], 2, 30 * 24 * 60 * MINUTE);
    let longer = change(2, &[0, 2], 2, 30 * 24 * 60 * MINUTE + 1);

    assert!(gate.admit(&longer, &signed(&longer, "ada", &["bob"]), at(1)).is_err());
    gate.admit(&month, &signed(&month, "ada", &["bob"]), at(1)).unwrap();
    for (meter, passes) in [(0, true), (1, false)] {
        let request = u64::from(meter);
        let armed = gate.arm([1; 16], command(1, meter), request, &wrapped(&BOTH), at(2)).unwrap();
        assert_eq!(gate.permit(u32::from(meter), request, &armed.work, at(2)).is_ok(), passes);
    }
}

#[test]
fn broadcast_keys_and_unordered_numbers_are_no_key_change() {
    for keys in [&[][..], &[1], &[0, 1], &[2, 0], &[0, 0], &[0, 4]] {
        assert!(Order::decode(&change(1, keys, 1, MINUTE)).is_err(), "{keys:?}");
    }
    for keys in [&[0][..], &[2], &[0, 2], &[0, 2, 3]] {
        assert!(Order::decode(&change(1, keys, 1, MINUTE)).is_ok(), "{keys:?}");
    }
}
