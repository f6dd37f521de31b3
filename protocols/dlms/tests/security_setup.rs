//! The security setup's methods between both roles, as key rotation uses them.

mod common;

use std::sync::Arc;

use common::*;
use ipss_dlms::cosem::{ActionResult, AttributeDescriptor, DataAccessResult, LogicalName, MethodDescriptor, Selection};
use ipss_dlms::head_end::{Control, HeadEnd, Item};
use ipss_dlms::meter::{Access, Meter, Objects, Settings};
use ipss_dlms::profile::Profile;
use ipss_dlms::security::Suite;
use ipss_dlms::security::setup::{
    Agreement, CLASS_ID, CertificateName, KeyId, KeyPair, Method, NewKeys, SecuritySetup,
};
use ipss_session::rig::{Rig, SeededRandom};
use ipss_session::{Cell, Input, Limits, Now, Outcome, Random};

const SETUP: LogicalName = LogicalName([0, 0, 43, 0, 0, 255]);

/// The small meter with a security setup.
struct Secured {
    inner: Small,
    setup: SecuritySetup,
}

impl Objects for Secured {
    fn get(
        &mut self,
        access: Access,
        descriptor: AttributeDescriptor,
        selection: Option<&Selection>,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Result<(), DataAccessResult> {
        self.inner.get(access, descriptor, selection, now, out)
    }

    fn set(&mut self, access: Access, descriptor: AttributeDescriptor, value: &[u8], now: Now) -> DataAccessResult {
        self.inner.set(access, descriptor, value, now)
    }

    fn act(&mut self, _: Access, _: MethodDescriptor, _: Option<&[u8]>, _: Now, _: &mut Vec<u8>) -> ActionResult {
        ActionResult::ObjectUndefined
    }

    fn act_with_random(
        &mut self,
        _: Access,
        method: MethodDescriptor,
        parameters: Option<&[u8]>,
        _: Now,
        random: &mut dyn Random,
        out: &mut Vec<u8>,
    ) -> ActionResult {
        assert_eq!((method.class_id, method.logical_name), (CLASS_ID, SETUP));
        self.setup.act(method.method, parameters, random, out)
    }

    fn new_keys(&mut self) -> Option<NewKeys> {
        self.setup.new_keys()
    }
}

type SetupRig = Rig<HeadEnd, Meter<Secured>>;

fn setup_of(suite: Suite) -> SecuritySetup {
    let mut setup = SecuritySetup::new(suite, HEAD_END_TITLE, METER_TITLE, key_of(suite, 9));
    setup.private_keys[0] = private_key(suite, 4);
    setup.client_signing = private_key(suite, 3).map(|key| key.public_key());
    setup.authority = private_key(suite, 8).map(|key| key.public_key());
    setup
}

fn rig_of(suite: Suite) -> SetupRig {
    let profile = Profile { suite, ..secured() };
    let settings = Settings { clients: vec![profile.clone()], largest_answer: 400, log_nonces: true };
    let objects = Secured { inner: Small::default(), setup: setup_of(suite) };
    let channel = meter_channel_of(suite, METER_TITLE);
    let meter = Meter::new(7, Arc::new(settings), objects, channel, b"secret");
    let mut rig = Rig::new(head_end(&profile), meter, 1, START);
    rig.connect();
    rig
}

fn invoke(rig: &mut SetupRig, items: Vec<Item>) -> Option<Outcome> {
    let id = rig.near.finished.len() as u64 + 1;
    rig.tell_near(Input::Request(request(id, items)));
    rig.run(std::time::Duration::from_secs(20), 2_000);
    rig.near.finished.last().filter(|(request, _)| request.id == id).map(|(_, outcome)| *outcome)
}

fn item(method: &Method) -> Item {
    let descriptor = MethodDescriptor { class_id: CLASS_ID, logical_name: SETUP, method: method.number() };
    Item::Action(descriptor, Some(method.encode().into()))
}

#[test]
fn transferred_keys_are_in_use_on_both_ends_after_the_answer() {
    for suite in [Suite::Zero, Suite::One, Suite::Two] {
        let mut rig = rig_of(suite);
        let (encryption, authentication) = (key_of(suite, 21), key_of(suite, 22));
        let keys = [(KeyId::GlobalUnicast, &encryption), (KeyId::Authentication, &authentication)];

        let transfer = Method::transfer(&key_of(suite, 9), keys);
        assert_eq!(invoke(&mut rig, vec![item(&transfer)]), Some(Outcome::Done));

        // With the old keys nothing is understood any more.
        let keys = NewKeys { encryption: Some(encryption), authentication: Some(authentication), ..NewKeys::default() };
        rig.tell_near(Input::Control(Control::Rekey { keys: Box::new(keys), next: 0, end: 1_000 }));
        assert_eq!(invoke(&mut rig, vec![energy()]), Some(Outcome::Done), "{suite:?}");
        rig.disconnect();
        rig.connect();
        assert_eq!(invoke(&mut rig, vec![energy()]), Some(Outcome::Done), "{suite:?}: a new association");
    }
}

#[test]
fn without_the_new_keys_a_rotated_meter_says_nothing() {
    let mut rig = rig_of(Suite::Zero);
    let transfer = Method::transfer(&key(9), [(KeyId::GlobalUnicast, &key(21))]);
    assert_eq!(invoke(&mut rig, vec![item(&transfer)]), Some(Outcome::Done));

    assert_ne!(invoke(&mut rig, vec![energy()]), Some(Outcome::Done));
}

#[test]
fn keys_wrapped_under_another_master_key_change_nothing() {
    let mut rig = rig_of(Suite::Zero);
    let transfer = Method::transfer(&key(10), [(KeyId::GlobalUnicast, &key(21))]);

    assert_eq!(invoke(&mut rig, vec![item(&transfer)]), Some(Outcome::Refused));
    assert_eq!(invoke(&mut rig, vec![energy()]), Some(Outcome::Done));
}

#[test]
fn both_ends_agree_on_the_same_keys() {
    for suite in [Suite::One, Suite::Two] {
        let mut rig = rig_of(suite);
        let signing = private_key(suite, 3).unwrap();
        let ids = [KeyId::GlobalUnicast, KeyId::Authentication, KeyId::Master];
        let (agreement, method) = Agreement::begin(suite, &ids, &signing, &mut SeededRandom::new(5)).unwrap();

        assert_eq!(invoke(&mut rig, vec![item(&method)]), Some(Outcome::Done));

        let cells = rig.near.batch.cells(0);
        let Cell::Raw(returned) = cells[0] else { panic!("{cells:?}") };
        let meter = private_key(suite, 4).unwrap().public_key();
        let keys = agreement.finish(returned, &meter, (HEAD_END_TITLE, METER_TITLE), &Limits::default()).unwrap();
        assert_eq!(keys.master.as_ref(), Some(&rig.far.session.objects.setup.master));
        rig.tell_near(Input::Control(Control::Rekey { keys: Box::new(keys), next: 0, end: 1_000 }));
        assert_eq!(invoke(&mut rig, vec![energy()]), Some(Outcome::Done), "{suite:?}");
    }
}

#[test]
fn an_offer_that_nobody_signed_is_refused() {
    let mut rig = rig_of(Suite::One);
    let stranger = private_key(Suite::One, 77).unwrap();
    let random = &mut SeededRandom::new(5);
    let (_, method) = Agreement::begin(Suite::One, &[KeyId::GlobalUnicast], &stranger, random).unwrap();

    assert_eq!(invoke(&mut rig, vec![item(&method)]), Some(Outcome::Refused));
    assert_eq!(invoke(&mut rig, vec![energy()]), Some(Outcome::Done));
}

#[test]
fn a_policy_is_made_stronger_and_never_weaker() {
    let mut rig = rig_of(Suite::Zero);

    assert_eq!(invoke(&mut rig, vec![item(&Method::Activate(0x0C))]), Some(Outcome::Done));
    assert_eq!(invoke(&mut rig, vec![item(&Method::Activate(0x6C))]), Some(Outcome::Done));
    assert_eq!(invoke(&mut rig, vec![item(&Method::Activate(0x04))]), Some(Outcome::Refused));
    assert_eq!(rig.far.session.objects.setup.policy, 0x6C);
}

#[test]
fn a_key_pair_is_made_and_its_certificate_requested() {
    for suite in [Suite::One, Suite::Two] {
        let mut rig = rig_of(suite);
        let steps =
            [Method::GenerateKeyPair(KeyPair::Agreement), Method::GenerateCertificateRequest(KeyPair::Agreement)];

        assert_eq!(invoke(&mut rig, steps.iter().map(item).collect()), Some(Outcome::Done));

        let cells = rig.near.batch.cells(1);
        let Cell::Raw(returned) = cells[0] else { panic!("{cells:?}") };
        let public = rig.far.session.objects.setup.private_keys[1].as_ref().unwrap().public_key().octets();
        assert!(returned.windows(public.len()).any(|window| window == public));
        let title = b"5453546D65746572";
        assert!(returned.windows(title.len()).any(|window| window == title), "the common name is the system title");
    }
}

#[test]
fn every_method_is_read_as_it_was_written_and_no_prefix_of_it() {
    let limits = Limits::default();
    let name = CertificateName::Entity { owner: 0, kind: 1, system_title: METER_TITLE.0.to_vec() };
    let serial = CertificateName::Serial { serial: vec![1, 2], issuer: vec![0x30, 0] };
    let methods = [
        Method::Activate(0x0C),
        Method::transfer(&key(9), [(KeyId::Master, &key(1)), (KeyId::GlobalBroadcast, &key(2))]),
        Method::KeyAgreement(vec![(KeyId::Authentication, vec![7; 128])]),
        Method::GenerateKeyPair(KeyPair::Tls),
        Method::GenerateCertificateRequest(KeyPair::Signature),
        Method::ImportCertificate(vec![0x30, 0x80]),
        Method::ExportCertificate(name.clone()),
        Method::ExportCertificate(serial.clone()),
        Method::RemoveCertificate(name),
        Method::RemoveCertificate(serial),
    ];
    for method in methods {
        let octets = method.encode();

        assert_eq!(Method::decode(method.number(), &octets, &limits).unwrap(), Some(method.clone()));
        for end in 0..octets.len() {
            assert!(!matches!(Method::decode(method.number(), &octets[..end], &limits), Ok(Some(_))));
        }
    }
}

#[test]
fn parameters_of_another_kind_are_refused() {
    let mut setup = setup_of(Suite::Zero);
    let random = &mut SeededRandom::new(1);
    for number in -1..=10 {
        let result = setup.act(number, Some(&[15, 1]), random, &mut Vec::new());
        let wanted =
            if (1..=8).contains(&number) { ActionResult::TypeUnmatched } else { ActionResult::ObjectUndefined };
        assert_eq!(result, wanted, "method {number}");
    }
}
