//! A meter whose attributes can be written and whose methods give back what they are given, and rigs with it.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::sync::Arc;

use ipss_dlms::axdr::{Data, tag};
use ipss_dlms::cosem::{
    ActionResult, AttributeDescriptor, DataAccessResult, LogicalName, MethodDescriptor, Selection, ShortNamedObject,
    ShortNames,
};
use ipss_dlms::head_end::HeadEnd;
use ipss_dlms::meter::{Access, Meter, Objects, Settings};
use ipss_dlms::profile::Profile;
use ipss_session::rig::Rig;
use ipss_session::{Now, WallTime};

use crate::common::{self, Small};

/// Objects of class 1 whose attribute 2 is anything, a register, a profile, and a script table whose method 1 gives
/// back its parameters and counts.
#[derive(Debug, Default)]
pub struct Rich {
    pub small: Small,
    pub values: BTreeMap<[u8; 6], Vec<u8>>,
    pub invoked: Vec<(i8, Option<Vec<u8>>)>,
    pub written: usize,
}

/// The logical name of a writable object.
pub fn thing(number: u8) -> AttributeDescriptor {
    AttributeDescriptor { class_id: 1, logical_name: LogicalName([0, 0, 96, 1, number, 255]), attribute: 2 }
}

/// A method that gives back its parameters (1), refuses (2), or gives back nothing (3).
pub fn method(number: i8) -> MethodDescriptor {
    MethodDescriptor { class_id: 9, logical_name: LogicalName([0, 0, 10, 0, 0, 255]), method: number }
}

/// A value of about `length` octets.
pub fn value(seed: u8, length: usize) -> Box<[u8]> {
    Data::OctetString((0..length).map(|place| (place as u8).wrapping_mul(7).wrapping_add(seed)).collect())
        .to_octets()
        .into()
}

impl Objects for Rich {
    fn get(
        &mut self,
        access: Access,
        descriptor: AttributeDescriptor,
        selection: Option<&Selection>,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Result<(), DataAccessResult> {
        match self.values.get(&descriptor.logical_name.0) {
            Some(value) if descriptor.class_id == 1 => {
                out.extend_from_slice(value);
                Ok(())
            }
            _ => self.small.get(access, descriptor, selection, now, out),
        }
    }

    fn set(&mut self, access: Access, descriptor: AttributeDescriptor, value: &[u8], now: Now) -> DataAccessResult {
        if descriptor.class_id == 1 && descriptor.logical_name.0[2] == 96 {
            if descriptor.logical_name.0[4] == 99 {
                return DataAccessResult::ReadWriteDenied;
            }
            self.written += 1;
            self.values.insert(descriptor.logical_name.0, value.to_vec());
            return DataAccessResult::Success;
        }
        self.small.set(access, descriptor, value, now)
    }

    fn act(
        &mut self,
        access: Access,
        descriptor: MethodDescriptor,
        parameters: Option<&[u8]>,
        now: Now,
        out: &mut Vec<u8>,
    ) -> ActionResult {
        if descriptor.class_id != 9 {
            return self.small.act(access, descriptor, parameters, now, out);
        }
        self.invoked.push((descriptor.method, parameters.map(<[u8]>::to_vec)));
        match descriptor.method {
            1 => {
                out.extend_from_slice(parameters.unwrap_or(&[tag::NULL_DATA]));
                ActionResult::Success
            }
            2 => ActionResult::ReadWriteDenied,
            _ => ActionResult::Success,
        }
    }

    fn short_names(&mut self) -> Option<Arc<ShortNames>> {
        let object = |base, class_id, version, logical_name| ShortNamedObject { base, class_id, version, logical_name };
        let mut objects = vec![
            object(0xFA00, 12, 1, LogicalName::CURRENT_ASSOCIATION),
            object(0x0100, 3, 0, common::ENERGY),
            object(0x0180, 3, 0, common::EXPORT),
            object(0x0200, 7, 1, common::LOAD_PROFILE),
            object(0x0300, 70, 0, common::SWITCH),
            object(0x0400, 9, 0, method(1).logical_name),
            object(0x0500, 1, 0, LogicalName::LOGICAL_DEVICE_NAME),
        ];
        objects
            .extend((0..100).map(|number| object(0x1000 + 16 * u16::from(number), 1, 0, thing(number).logical_name)));
        Some(Arc::new(ShortNames::new(objects)))
    }
}

pub type RichRig = Rig<HeadEnd, Meter<Rich>>;

/// Both ends under one profile; the meter takes and gives APDUs of at most `pdu` octets.
pub fn rig(profile: &Profile, pdu: u16) -> RichRig {
    rig_of(profile, &Profile { max_pdu: pdu, ..profile.clone() }, pdu)
}

/// Both ends under a profile of their own.
pub fn rig_of(head_end: &Profile, meter: &Profile, pdu: u16) -> RichRig {
    let settings = Settings {
        clients: vec![meter.clone(), Profile::public()],
        largest_answer: usize::from(pdu),
        log_nonces: true,
    };
    let channel = common::meter_channel_of(meter.suite, common::METER_TITLE);
    let far = Meter::new(7, Arc::new(settings), Rich::default(), channel, b"secret");
    Rig::new(common::head_end(head_end), far, 1, WallTime(common::START.0))
}

/// As [`common::ask`].
pub fn ask(rig: &mut RichRig, items: Vec<ipss_dlms::head_end::Item>) -> Option<ipss_session::Outcome> {
    use ipss_session::{Input, Session};
    while !rig.open || !rig.near.session.ready() {
        rig.disconnect();
        rig.connect();
    }
    let id = rig.near.finished.len() as u64 + 1;
    rig.tell_near(Input::Request(common::request(id, items)));
    rig.run(std::time::Duration::from_secs(600), 200_000);
    rig.near.finished.last().filter(|(request, _)| request.id == id).map(|(_, outcome)| *outcome)
}
