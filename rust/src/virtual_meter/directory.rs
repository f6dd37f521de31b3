//! The objects of a virtual meter and who may do what with them: the one table behind every answer and behind the
//! association's object list.

use std::sync::{Arc, OnceLock};

use ipss_dlms::cosem::{LogicalName, ShortNamedObject, ShortNames};
use ipss_dlms::meter::Access;

use super::encode;

/// What an object is, for the code that answers for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Clock,
    DeviceName,
    Serial,
    Firmware,
    InvocationCounter,
    ProfileStatus,
    LastEvent,
    Register(Quantity),
    MaximumDemand,
    Demand,
    LoadProfile,
    DailyProfile,
    EventLog,
    Association,
    ServiceAccessPoints,
    SecuritySetup,
    Disconnector,
    PushSetup,
    Limiter,
    ImageTransfer,
    ActivityCalendar,
}

/// What a register counts or measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantity {
    Import,
    ImportDay,
    ImportNight,
    Export,
    ReactiveImport,
    ReactiveExport,
    ImportPower,
    ExportPower,
    PowerFactor,
    Frequency,
    Voltage(u8),
    Current(u8),
}

/// One object.
#[derive(Debug)]
pub(super) struct Object {
    pub item: Item,
    pub class_id: u16,
    pub version: u8,
    pub name: LogicalName,
    /// How many attributes it has; all but `secret` can be read.
    pub attributes: i8,
    /// An attribute that can never be read, or 0.
    secret: i8,
    /// Attributes that the management client may write.
    writable: &'static [i8],
    /// How many methods the class has.
    pub methods: i8,
    /// Methods that the management client may invoke.
    callable: &'static [i8],
    /// Whether the public client may read it.
    public: bool,
    /// Whether only three-phase meters have it.
    three_phase: bool,
}

/// What a client may do, by its service access point (the head-end's clients are 16 public, 1 management; the others
/// read).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Public,
    Reader,
    Manager,
}

impl Role {
    /// Who has not proved who it is counts as the public client.
    pub fn of(access: Access) -> Self {
        match (access.client, access.authenticated) {
            (16, _) | (_, false) => Self::Public,
            (1, true) => Self::Manager,
            (_, true) => Self::Reader,
        }
    }
}

impl Object {
    const fn new(item: Item, class_id: u16, version: u8, name: [u8; 6], attributes: i8) -> Self {
        Self {
            item,
            class_id,
            version,
            name: LogicalName(name),
            attributes,
            secret: 0,
            writable: &[],
            methods: 0,
            callable: &[],
            public: false,
            three_phase: false,
        }
    }

    const fn data(item: Item, name: [u8; 6]) -> Self {
        Self::new(item, 1, 0, name, 2)
    }

    const fn register(quantity: Quantity, name: [u8; 6]) -> Self {
        Self::new(Item::Register(quantity), 3, 0, name, 3).method_count(1, &[])
    }

    const fn profile(item: Item, name: [u8; 6]) -> Self {
        Self::new(item, 7, 1, name, 8).method_count(2, &[])
    }

    const fn public(mut self) -> Self {
        self.public = true;
        self
    }

    const fn three_phase(mut self) -> Self {
        self.three_phase = true;
        self
    }

    const fn writable(mut self, attributes: &'static [i8]) -> Self {
        self.writable = attributes;
        self
    }

    const fn secret(mut self, attribute: i8) -> Self {
        self.secret = attribute;
        self
    }

    const fn method_count(mut self, methods: i8, callable: &'static [i8]) -> Self {
        self.methods = methods;
        self.callable = callable;
        self
    }

    /// Whether the class has this attribute.
    pub fn has_attribute(&self, attribute: i8) -> bool {
        (1..=self.attributes).contains(&attribute)
    }

    pub fn readable(&self, role: Role, attribute: i8) -> bool {
        self.has_attribute(attribute) && attribute != self.secret && (self.public || role != Role::Public)
    }

    pub fn writable_by(&self, role: Role, attribute: i8) -> bool {
        role == Role::Manager && self.writable.contains(&attribute)
    }

    pub fn callable_by(&self, role: Role, method: i8) -> bool {
        // Every client may prove who it is: reply_to_HLS_authentication, which the session answers itself.
        role != Role::Public && self.item == Item::Association && method == 1
            || role == Role::Manager && self.callable.contains(&method)
    }

    /// One element of the object list (Blue Book, "Association LN", object_list_element).
    fn describe(&self, role: Role, out: &mut Vec<u8>) {
        encode::structure(out, 4);
        encode::long_unsigned(out, self.class_id);
        encode::unsigned(out, self.version);
        encode::logical_name(out, self.name);
        encode::structure(out, 2);
        encode::array(out, self.attributes as usize);
        for attribute in 1..=self.attributes {
            let (read, write) = (self.readable(role, attribute), self.writable_by(role, attribute));
            encode::structure(out, 3);
            encode::integer(out, attribute);
            encode::enumeration(out, u8::from(read) | u8::from(write) << 1);
            if self.class_id == 7 && attribute == 2 && read {
                encode::array(out, 2);
                encode::integer(out, 1);
                encode::integer(out, 2);
            } else {
                encode::null(out);
            }
        }
        encode::array(out, self.methods as usize);
        for method in 1..=self.methods {
            encode::structure(out, 2);
            encode::integer(out, method);
            encode::enumeration(out, u8::from(self.callable_by(role, method)));
        }
    }
}

/// The objects that a meter has, in the order of its object list.
pub(super) fn objects(three_phase: bool) -> impl Iterator<Item = &'static Object> {
    OBJECTS.iter().filter(move |object| three_phase || !object.three_phase)
}

/// The object of a name.
pub(super) fn find(name: LogicalName, three_phase: bool) -> Option<&'static Object> {
    objects(three_phase).find(|object| object.name == name)
}

/// The object list as a client sees it: an array of all objects that it may read.
pub(super) fn list(role: Role, three_phase: bool, out: &mut Vec<u8>) {
    let seen = |object: &&Object| role != Role::Public || object.public;
    encode::array(out, objects(three_phase).filter(seen).count());
    objects(three_phase).filter(seen).for_each(|object| object.describe(role, out));
}

/// The short names of all objects: 256 apart, from 0x0100 on, and the association's own.
pub(super) fn short_names(three_phase: bool) -> Arc<ShortNames> {
    static NAMES: [OnceLock<Arc<ShortNames>>; 2] = [OnceLock::new(), OnceLock::new()];
    let named = || {
        let of = |base, object: &Object| ShortNamedObject {
            base,
            class_id: object.class_id,
            version: object.version,
            logical_name: object.name,
        };
        let association = ShortNamedObject {
            base: ShortNames::ASSOCIATION,
            class_id: 12,
            version: 1,
            logical_name: LogicalName::CURRENT_ASSOCIATION,
        };
        let bases = (0x0100_u16..ShortNames::ASSOCIATION).step_by(0x100);
        let objects = bases.zip(objects(three_phase)).map(|(base, object)| of(base, object));
        Arc::new(ShortNames::new(objects.chain([association]).collect()))
    };
    NAMES[usize::from(three_phase)].get_or_init(named).clone()
}

pub(super) const PROFILE_STATUS: LogicalName = LogicalName([0, 0, 96, 10, 1, 255]);
pub(super) const EVENT_CODE: LogicalName = LogicalName([0, 0, 96, 11, 0, 255]);
pub(super) const SECURITY_SETUP: LogicalName = LogicalName([0, 0, 43, 0, 0, 255]);
pub(super) const DISCONNECTOR: LogicalName = LogicalName([0, 0, 96, 3, 10, 255]);
pub(super) const IMPORT: LogicalName = LogicalName([1, 0, 1, 8, 0, 255]);
pub(super) const IMPORT_DAY: LogicalName = LogicalName([1, 0, 1, 8, 1, 255]);
pub(super) const IMPORT_NIGHT: LogicalName = LogicalName([1, 0, 1, 8, 2, 255]);
pub(super) const EXPORT: LogicalName = LogicalName([1, 0, 2, 8, 0, 255]);
pub(super) const REACTIVE_IMPORT: LogicalName = LogicalName([1, 0, 3, 8, 0, 255]);
pub(super) const VOLTAGE: LogicalName = LogicalName([1, 0, 32, 7, 0, 255]);

static OBJECTS: [Object; 38] = {
    use Item::*;
    use Quantity::*;
    [
        Object::new(Clock, 8, 0, LogicalName::CLOCK.0, 9).writable(&[2]).method_count(6, &[1, 2, 3, 6]).public(),
        Object::data(DeviceName, LogicalName::LOGICAL_DEVICE_NAME.0).public(),
        Object::data(Serial, [0, 0, 96, 1, 0, 255]),
        Object::data(Firmware, [1, 0, 0, 2, 0, 255]),
        Object::data(InvocationCounter, [0, 0, 43, 1, 0, 255]).public(),
        Object::data(ProfileStatus, PROFILE_STATUS.0),
        Object::data(LastEvent, EVENT_CODE.0),
        Object::register(Import, IMPORT.0),
        Object::register(ImportDay, IMPORT_DAY.0),
        Object::register(ImportNight, IMPORT_NIGHT.0),
        Object::register(Export, EXPORT.0),
        Object::register(ReactiveImport, REACTIVE_IMPORT.0),
        Object::register(ReactiveExport, [1, 0, 4, 8, 0, 255]),
        Object::register(ImportPower, [1, 0, 1, 7, 0, 255]),
        Object::register(ExportPower, [1, 0, 2, 7, 0, 255]),
        Object::register(PowerFactor, [1, 0, 13, 7, 0, 255]),
        Object::register(Frequency, [1, 0, 14, 7, 0, 255]),
        Object::register(Voltage(0), VOLTAGE.0),
        Object::register(Voltage(1), [1, 0, 52, 7, 0, 255]).three_phase(),
        Object::register(Voltage(2), [1, 0, 72, 7, 0, 255]).three_phase(),
        Object::register(Current(0), [1, 0, 31, 7, 0, 255]),
        Object::register(Current(1), [1, 0, 51, 7, 0, 255]).three_phase(),
        Object::register(Current(2), [1, 0, 71, 7, 0, 255]).three_phase(),
        Object::new(MaximumDemand, 4, 0, [1, 0, 1, 6, 0, 255], 5).method_count(1, &[]),
        Object::new(Demand, 5, 0, [1, 0, 1, 4, 0, 255], 9).method_count(2, &[]),
        Object::profile(LoadProfile, [1, 0, 99, 1, 0, 255]),
        Object::profile(DailyProfile, [1, 0, 98, 1, 0, 255]),
        Object::profile(EventLog, [0, 0, 99, 98, 0, 255]),
        Object::new(Association, 15, 1, LogicalName::CURRENT_ASSOCIATION.0, 9).secret(7).method_count(4, &[]).public(),
        Object::new(ServiceAccessPoints, 17, 0, LogicalName::SAP_ASSIGNMENT.0, 2).method_count(1, &[]).public(),
        Object::new(SecuritySetup, 64, 0, SECURITY_SETUP.0, 5).method_count(2, &[2]),
        Object::new(Disconnector, 70, 0, DISCONNECTOR.0, 4).writable(&[4]).method_count(2, &[1, 2]),
        Object::new(PushSetup, 40, 0, [0, 0, 25, 9, 0, 255], 7).method_count(1, &[1]),
        Object::new(Limiter, 71, 0, [0, 0, 17, 0, 0, 255], 11).writable(&[4, 5, 6, 7]),
        Object::new(ImageTransfer, 18, 0, [0, 0, 44, 0, 0, 255], 7).method_count(4, &[1, 2, 3, 4]),
        Object::new(ActivityCalendar, 20, 0, [0, 0, 13, 0, 0, 255], 10).writable(&[6, 7, 8, 9]).method_count(1, &[1]),
        // The meter's own identifiers by which others look it up: device id 2 and the metering point.
        Object::data(Serial, [0, 0, 96, 1, 1, 255]),
        Object::data(Serial, [1, 0, 0, 0, 0, 255]),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_objects_have_a_name() {
        let names: std::collections::HashSet<_> = OBJECTS.iter().map(|object| object.name).collect();

        assert_eq!(names.len(), OBJECTS.len());
    }

    #[test]
    fn client_without_proof_counts_as_public() {
        let role = |client, authenticated| Role::of(Access { client, authenticated });

        assert_eq!(role(16, true), Role::Public);
        assert_eq!(role(1, false), Role::Public);
        assert_eq!(role(1, true), Role::Manager);
        assert_eq!(role(2, true), Role::Reader);
    }
}
