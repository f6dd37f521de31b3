//! What a command does on the wire, and which objects only a released command may touch.

use std::sync::Arc;
use std::time::Duration;

use ipss_dlms::cosem::{AttributeDescriptor, LogicalName, MethodDescriptor};
use ipss_dlms::head_end::{Access, Item, Plan, Work};
use ipss_dlms::security::Key;
use ipss_dlms::security::setup::{KeyId, Method};
use ipss_modbus::head_end as modbus;
use ipss_modbus::pdu::RequestPdu;
use ipss_session::{Limits, WallTime};

use crate::sessions;

/// What a critical effect is about. The names are those that people sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Supply is cut (class 70, method 1).
    Disconnect,
    /// Supply returns, or the customer may make it return (class 70, method 2).
    Reconnect,
    /// The limiter, which cuts supply by itself (class 71), what the disconnector may do (class 70, attributes), or
    /// prepayment, which cuts who has no credit (classes 111 to 113, 115).
    Limit,
    /// Scripts, schedules and other detours to any of the others (classes 9, 10, 21, 22, 30, 67, 68, 122, 123).
    Script,
    /// A new firmware takes over (class 18).
    Firmware,
    /// Keys and secrets (class 64; classes 12 and 15, secret; class 19, passwords; class 72, keys of meters behind).
    KeyChange,
    /// Another tariff begins (classes 6 and 20).
    Tariff,
    /// An inverter or a storage leaves the grid (Modbus).
    DerDisconnect,
    /// It may come back (Modbus).
    DerReconnect,
    /// Its active power is limited so far that it is as good as switched off, or that limit ends (Modbus).
    DerLimit,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Disconnect,
        Self::Reconnect,
        Self::Limit,
        Self::Script,
        Self::Firmware,
        Self::KeyChange,
        Self::Tariff,
        Self::DerDisconnect,
        Self::DerReconnect,
        Self::DerLimit,
    ];

    /// The name in the canonical octets.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::Reconnect => "reconnect",
            Self::Limit => "limit",
            Self::Script => "script",
            Self::Firmware => "firmware",
            Self::KeyChange => "key-change",
            Self::Tariff => "tariff",
            Self::DerDisconnect => "der-disconnect",
            Self::DerReconnect => "der-reconnect",
            Self::DerLimit => "der-limit",
        }
    }

    /// Whether it may take supply from a customer: never done to a meter of the never-disconnect list (R18).
    ///
    /// What registers mean is the device's to know, so the word of an order alone makes none of these harmless.
    pub fn may_cut(self) -> bool {
        matches!(self, Self::Disconnect | Self::Limit | Self::Script) || self.is_of_registers()
    }

    /// Whether it is a write of a Modbus device.
    pub fn is_of_registers(self) -> bool {
        matches!(self, Self::DerDisconnect | Self::DerReconnect | Self::DerLimit)
    }

    /// Whose ceiling it counts against.
    pub fn pool(self) -> Pool {
        match self {
            Self::Reconnect => Pool::Reconnect,
            Self::Firmware | Self::KeyChange | Self::Tariff => Pool::Change,
            Self::Disconnect | Self::Limit | Self::Script => Pool::Cut,
            // Registers do not tell what they mean: no word of an order makes them cheaper.
            Self::DerDisconnect | Self::DerReconnect | Self::DerLimit => Pool::Cut,
        }
    }

    /// The longest time between an order's making and its not-after: what changes meters goes out in rings, and those
    /// of a fleet take weeks.
    pub fn longest_life(self) -> Duration {
        const DAY: Duration = Duration::from_secs(24 * 3_600);
        if self.pool() == Pool::Change { DAY * 30 } else { DAY }
    }
}

/// What has a ceiling of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// What may take supply from a customer.
    Cut,
    /// What gives it back.
    Reconnect,
    /// What changes the meter and cuts nobody: keys, firmware, tariffs.
    Change,
}

impl Pool {
    /// The pool with this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "cut" => Some(Self::Cut),
            "reconnect" => Some(Self::Reconnect),
            "change" => Some(Self::Change),
            _ => None,
        }
    }
}

/// One service to one object, or one write of a Modbus unit: all that a command may send. It fits one APDU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Invoke a method with these parameters (A-XDR; none if empty).
    Action(MethodDescriptor, Box<[u8]>),
    /// Write an attribute (A-XDR).
    Set(AttributeDescriptor, Box<[u8]>),
    /// Invoke key_transfer of a security setup for these keys, by their numbers, each once and rising. The keys are made
    /// for each meter when its command leaves, and wrapped under the master key that only it has: nobody signs them.
    /// Of the master key alone it is two transfers, one behind the other: the new one under the key in use, and under
    /// itself, which a meter that has it takes, and no other: the only proof that there is.
    Transfer(MethodDescriptor, Box<[u8]>),
    /// Write a coil or holding registers.
    Registers(RegisterWrite),
}

/// One write of one Modbus unit, function 5, 6 or 16: one frame, whose PDU is this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterWrite {
    /// The unit identifier; 0 would be all units of a line, and is none.
    pub unit: u8,
    /// The PDU: function code, address, values.
    pub pdu: Box<[u8]>,
}

impl RegisterWrite {
    /// The write of these values (two octets a register; for a coil `FF00` or `0000`) from `address` on; `None` if the
    /// function is none of 5, 6 and 16, or these are no values of it.
    pub fn new(unit: u8, address: u16, function: u8, values: &[u8]) -> Option<Self> {
        let mut pdu = vec![function];
        pdu.extend_from_slice(&address.to_be_bytes());
        if function == WRITE_REGISTERS {
            let (octets, count) = (u8::try_from(values.len()).ok()?, u16::try_from(values.len() / 2).ok()?);
            pdu.extend_from_slice(&count.to_be_bytes());
            pdu.push(octets);
        }
        pdu.extend_from_slice(values);
        let written = match RequestPdu::decode(&pdu).ok()? {
            RequestPdu::WriteSingleCoil { .. } | RequestPdu::WriteSingleRegister { .. } => 1,
            RequestPdu::WriteMultipleRegisters { values, .. } => values.len(),
            _ => return None,
        };
        let fits = written > 0 && usize::from(address) + written <= 0x1_0000 && unit != 0;
        fits.then(|| Self { unit, pdu: pdu.into() })
    }

    fn item(&self) -> Option<modbus::Item> {
        RequestPdu::decode(&self.pdu).ok().and_then(|request| modbus::Item::ask(&request).ok())
    }
}

/// The method of a security setup that takes wrapped keys.
pub const KEY_TRANSFER: i8 = 2;

impl Effect {
    /// What it is about, under the name that people signed; `None` if it is nothing critical, or not that.
    ///
    /// Of an object the effect itself says it. Registers do not: their name is the order's, one of three.
    pub fn kind(&self, name: &str) -> Option<Kind> {
        match self.item() {
            Some(item) => kind_of(&item).filter(|found| found.name() == name),
            None => Kind::ALL.into_iter().find(|kind| kind.is_of_registers() && kind.name() == name),
        }
    }

    /// The unit of a Modbus device that it is for; `None`: it is for a meter with objects.
    pub fn unit(&self) -> Option<u8> {
        if let Self::Registers(write) = self { Some(write.unit) } else { None }
    }

    /// The same as the only work of a request; `made` is what was made for this meter alone. `None` if the effect does
    /// not want that, or something else.
    pub fn work(&self, made: &[u8]) -> Option<sessions::Work> {
        let items: Box<[Item]> = match self {
            Self::Action(..) | Self::Set(..) => Box::new([made.is_empty().then(|| self.item())??]),
            Self::Transfer(method, keys) => {
                let action = |parameters: &[u8]| Item::Action(*method, Some(parameters.into()));
                parts(made, keys)?.into_iter().map(action).collect()
            }
            Self::Registers(write) => {
                let plan = modbus::Plan { items: Box::new([made.is_empty().then(|| write.item())??]) };
                return Some(sessions::Work::Modbus(Arc::new(plan)));
            }
        };
        let plan = Arc::new(Plan { items });
        Some(sessions::Work::Dlms(Work { plan, from: WallTime(0), to: WallTime(0) }))
    }

    /// Whether this work is this effect and nothing else.
    pub fn is(&self, work: &Work) -> bool {
        match (&work.plan.items[..], self) {
            ([Item::Action(method, parameters)], Self::Action(own, octets)) => {
                method == own && parameters.as_deref().unwrap_or_default() == &octets[..]
            }
            (items, Self::Transfer(own, keys)) => {
                let is = |item: &Item| matches!(item, Item::Action(method, Some(parameters)) if method == own && transfers(parameters, keys));
                items.len() == transfers_of(keys) && items.iter().all(is)
            }
            ([Item::Set(values)], Self::Set(own, octets)) => {
                matches!(&values[..], [(descriptor, value)] if descriptor == own && value == octets)
            }
            _ => false,
        }
    }

    /// Whether this plan is this effect and nothing else.
    pub fn is_plan(&self, plan: &modbus::Plan) -> bool {
        matches!((&plan.items[..], self), ([modbus::Item::Ask(ask)], Self::Registers(own)) if *ask.pdu() == *own.pdu)
    }

    fn item(&self) -> Option<Item> {
        match self {
            Self::Action(method, octets) => Some(Item::Action(*method, (!octets.is_empty()).then(|| octets.clone()))),
            Self::Set(descriptor, value) => Some(Item::Set(Box::new([(*descriptor, value.clone())]))),
            Self::Transfer(method, _) => Some(Item::Action(*method, None)),
            Self::Registers(_) => None,
        }
    }
}

/// How many transfers a change of these keys is.
fn transfers_of(keys: &[u8]) -> usize {
    if keys == [KeyId::Master as u8] { 2 } else { 1 }
}

/// The parameters of each transfer in what was made: with more than one, of equal length. `None`: it is not that.
fn parts<'a>(made: &'a [u8], keys: &[u8]) -> Option<Vec<&'a [u8]>> {
    let length = made.len() / transfers_of(keys);
    let parts: Vec<_> = made.chunks(length.max(1)).collect();
    (parts.len() == transfers_of(keys) && parts.iter().all(|part| transfers(part, keys))).then_some(parts)
}

/// Whether these parameters transfer exactly these keys, each wrapped (RFC 3394: 8 octets more than a key of 16 or 32).
fn transfers(parameters: &[u8], keys: &[u8]) -> bool {
    let Ok(Some(Method::KeyTransfer(found))) = Method::decode(KEY_TRANSFER, parameters, &Limits::default()) else {
        return false;
    };
    found.len() == keys.len()
        && found.iter().zip(keys).all(|((id, wrapped), key)| *id as u8 == *key && matches!(wrapped.len(), 24 | 40))
}

/// Whether these are numbers of keys that a transfer may name: each once, rising. The broadcast key is none: it protects
/// nothing here (R24).
pub fn are_keys(numbers: &[u8]) -> bool {
    !numbers.is_empty()
        && numbers.windows(2).all(|pair| pair[0] < pair[1])
        && numbers.iter().all(|number| KeyId::from_number(*number).is_some_and(|id| id != KeyId::GlobalBroadcast))
}

/// The parameters of a transfer: these keys, wrapped under the meter's master key.
pub fn transfer<'a>(master: &Key, keys: impl IntoIterator<Item = (KeyId, &'a Key)>) -> Vec<u8> {
    Method::transfer(master, keys).encode()
}

/// What is made to change a master key: the new one under the key in use, and under itself.
pub fn change_of_master(master: &Key, new: &Key) -> Vec<u8> {
    [transfer(master, [(KeyId::Master, new)]), transfer(new, [(KeyId::Master, new)])].concat()
}

/// Function code of a write of several registers.
const WRITE_REGISTERS: u8 = 16;

/// Whether anything of this work is for commands alone.
pub fn is_critical(work: &Work) -> bool {
    work.plan.items.iter().any(|item| kind_of(item).is_some())
}

/// What an item of a plan is about, if only a released command may contain it.
///
/// By class and by logical name, whichever says so: a meter that looks at the name alone must not be switched by a
/// request that names another class (Blue Book, "Relation to OBIS").
pub fn kind_of(item: &Item) -> Option<Kind> {
    match item {
        Item::Attributes(_) | Item::Buffer(_) => None,
        Item::Set(values) => values.iter().find_map(|(descriptor, _)| of_attribute(descriptor)),
        Item::Action(method, _) => of_method(method),
        Item::Actions(list) => list.iter().find_map(|(method, _)| of_method(method)),
        Item::Access(access) => access.items.iter().find_map(|one| match one {
            Access::Get(..) => None,
            Access::Set(descriptor, _) => of_attribute(descriptor),
            Access::Action(method, _) => of_method(method),
        }),
        Item::Unconfirmed(item) => kind_of(item),
    }
}

fn of_attribute(descriptor: &AttributeDescriptor) -> Option<Kind> {
    worst(descriptor.class_id, descriptor.logical_name, |subject| match subject {
        Subject::Disconnector | Subject::Limiter | Subject::Prepayment => Some(Kind::Limit),
        Subject::Scripts => Some(Kind::Script),
        Subject::Image => Some(Kind::Firmware),
        Subject::Security => Some(Kind::KeyChange),
        // The secret of an association; its other attributes are not secret.
        Subject::Association => (descriptor.attribute == 7).then_some(Kind::KeyChange),
        // The passwords of an optical or serial port.
        Subject::Port => (descriptor.attribute >= 7).then_some(Kind::KeyChange),
        // The moment at which the passive calendar becomes the active one; the passive one may be prepared.
        Subject::Calendar => (!(6..=9).contains(&descriptor.attribute)).then_some(Kind::Tariff),
        Subject::Tariffs => Some(Kind::Tariff),
        Subject::MBus => None,
    })
}

fn of_method(method: &MethodDescriptor) -> Option<Kind> {
    worst(method.class_id, method.logical_name, |subject| match subject {
        Subject::Disconnector if method.method == 2 => Some(Kind::Reconnect),
        Subject::Disconnector => Some(Kind::Disconnect),
        Subject::Limiter | Subject::Prepayment => Some(Kind::Limit),
        Subject::Scripts => Some(Kind::Script),
        // Initiate, transfer and verify prepare an image; only its activation changes the meter.
        Subject::Image => (!(1..=3).contains(&method.method)).then_some(Kind::Firmware),
        Subject::Security => Some(Kind::KeyChange),
        // Method 2 changes the secret; 1 is the session's own proof; 3 to 6 change who may associate.
        Subject::Association => Some(Kind::KeyChange),
        Subject::Port => None,
        // Transfer of keys.
        Subject::MBus => (method.method >= 7).then_some(Kind::KeyChange),
        Subject::Calendar | Subject::Tariffs => Some(Kind::Tariff),
    })
}

/// The worse of what the class says and of what the logical name says: a meter may go by either alone, so that neither
/// makes the other harmless.
fn worst(class_id: u16, name: LogicalName, of: impl Fn(Subject) -> Option<Kind>) -> Option<Kind> {
    let severity = |kind: &Kind| match kind.pool() {
        Pool::Cut => 2,
        Pool::Change => 1,
        Pool::Reconnect => 0,
    };
    let (first, second) = (by_class(class_id).and_then(&of), by_name(name).and_then(&of));
    match (first, second) {
        (Some(first), Some(second)) => Some(if severity(&second) > severity(&first) { second } else { first }),
        (first, second) => first.or(second),
    }
}

#[derive(Clone, Copy)]
enum Subject {
    Disconnector,
    Limiter,
    /// Credit, charges and tokens: a meter whose credit ends cuts supply by itself.
    Prepayment,
    /// What does something else when its time comes, a threshold is passed, or it is asked to.
    Scripts,
    Image,
    Security,
    Association,
    Port,
    Calendar,
    /// What says which tariff is in force. Special days may be prepared, as the passive calendar may.
    Tariffs,
    /// A meter behind this one, and its keys.
    MBus,
}

fn by_class(class_id: u16) -> Option<Subject> {
    match class_id {
        70 => Some(Subject::Disconnector),
        71 => Some(Subject::Limiter),
        111 | 112 | 113 | 115 => Some(Subject::Prepayment),
        // Script table, schedule, register monitor, single action schedule; COSEM data protection invokes and writes
        // what is wrapped in its parameters, a sensor manager and an arbitrator run scripts, function control
        // switches functions off, an array manager writes into any array.
        9 | 10 | 21 | 22 | 30 | 67 | 68 | 122 | 123 => Some(Subject::Scripts),
        18 => Some(Subject::Image),
        64 => Some(Subject::Security),
        12 | 15 => Some(Subject::Association),
        19 => Some(Subject::Port),
        20 => Some(Subject::Calendar),
        6 => Some(Subject::Tariffs),
        72 => Some(Subject::MBus),
        _ => None,
    }
}

/// By value group (Blue Book, "Relation to OBIS").
fn by_name(LogicalName(name): LogicalName) -> Option<Subject> {
    match (name[0], name[2], name[3]) {
        (0, 96, 3) if name[4] >= 10 && name[4] < 20 => Some(Subject::Disconnector),
        (0, 96, 3) if name[4] >= 20 && name[4] < 30 => Some(Subject::Scripts),
        (0, 24, 4) => Some(Subject::Disconnector),
        (0, 17, 0) => Some(Subject::Limiter),
        (0, 19, _) => Some(Subject::Prepayment),
        (0, 10, 0 | 106) | (0, 12 | 15 | 16 | 18, _) | (0, 43, 2) | (0, 44, 1) => Some(Subject::Scripts),
        (0, 44, 0) => Some(Subject::Image),
        (0, 43, 0) => Some(Subject::Security),
        (0, 40, 0) => Some(Subject::Association),
        (0, 20, 0) => Some(Subject::Port),
        (0, 13, 0) => Some(Subject::Calendar),
        (0, 14, 0) => Some(Subject::Tariffs),
        (0, 24, 1) => Some(Subject::MBus),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ipss_dlms::head_end::AccessList;

    use super::*;

    fn action(class_id: u16, name: [u8; 6], method: i8) -> Option<Kind> {
        kind_of(&Item::Action(MethodDescriptor { class_id, logical_name: LogicalName(name), method }, None))
    }

    fn set(class_id: u16, name: [u8; 6], attribute: i8) -> Option<Kind> {
        let descriptor = AttributeDescriptor { class_id, logical_name: LogicalName(name), attribute };
        kind_of(&Item::Set(Box::new([(descriptor, [0].into())])))
    }

    const RELAY: [u8; 6] = [0, 0, 96, 3, 10, 255];

    #[test]
    fn every_way_to_a_critical_object_is_known() {
        assert_eq!(action(70, RELAY, 1), Some(Kind::Disconnect));
        assert_eq!(action(70, RELAY, 2), Some(Kind::Reconnect));
        assert_eq!(action(70, RELAY, 7), Some(Kind::Disconnect));
        assert_eq!(action(70, [1, 2, 3, 4, 5, 6], 1), Some(Kind::Disconnect));
        assert_eq!(set(70, RELAY, 4), Some(Kind::Limit));
        assert_eq!(set(71, [0, 0, 17, 0, 0, 255], 3), Some(Kind::Limit));
        assert_eq!(action(9, [0, 0, 10, 0, 106, 255], 1), Some(Kind::Script));
        assert_eq!(set(22, [0, 0, 15, 0, 1, 255], 4), Some(Kind::Script));
        assert_eq!(action(18, [0, 0, 44, 0, 0, 255], 4), Some(Kind::Firmware));
        assert_eq!(action(64, [0, 0, 43, 0, 0, 255], 2), Some(Kind::KeyChange));
        assert_eq!(set(15, [0, 0, 40, 0, 0, 255], 7), Some(Kind::KeyChange));
        assert_eq!(set(20, [0, 0, 13, 0, 0, 255], 10), Some(Kind::Tariff));
        assert_eq!(action(20, [0, 0, 13, 0, 0, 255], 1), Some(Kind::Tariff));
    }

    #[test]
    fn another_class_in_front_of_a_critical_name_hides_nothing() {
        assert_eq!(action(1, RELAY, 1), Some(Kind::Disconnect));
        assert_eq!(set(3, [0, 0, 17, 0, 0, 255], 2), Some(Kind::Limit));
        assert_eq!(action(1, [0, 0, 10, 0, 106, 255], 1), Some(Kind::Script));
    }

    /// The class of something harmless, or less harmful, in front of a name that says more: the name counts.
    #[test]
    fn class_with_harmless_members_makes_no_critical_name_harmless() {
        const LIMITER: [u8; 6] = [0, 0, 17, 0, 0, 255];

        assert_eq!(action(18, RELAY, 1), Some(Kind::Disconnect), "an image may be begun, a relay not opened");
        assert_eq!(action(20, RELAY, 1), Some(Kind::Disconnect), "no tariff: a protected meter would be cut");
        assert_eq!(action(64, RELAY, 1), Some(Kind::Disconnect));
        assert_eq!(set(15, LIMITER, 4), Some(Kind::Limit));
        assert_eq!(set(20, LIMITER, 6), Some(Kind::Limit), "a passive calendar may be prepared, a limit not");
        assert_eq!(action(70, LIMITER, 2), Some(Kind::Limit), "no reconnection");
        assert_eq!(action(20, [0, 0, 10, 0, 106, 255], 1), Some(Kind::Script));
        assert_eq!(action(70, [0, 0, 13, 0, 0, 255], 1), Some(Kind::Disconnect), "nor the other way round");
        assert_eq!(action(70, RELAY, 2), Some(Kind::Reconnect));
    }

    #[test]
    fn detours_to_a_critical_object_are_critical() {
        let other = [0, 0, 128, 0, 0, 255];

        assert_eq!(action(68, [0, 0, 96, 3, 20, 255], 1), Some(Kind::Script), "request_action of an arbitrator");
        assert_eq!(action(68, other, 1), Some(Kind::Script));
        assert_eq!(action(30, [0, 0, 43, 2, 0, 255], 3), Some(Kind::Script), "invoke_protected_method");
        assert_eq!(action(1, [0, 0, 43, 2, 0, 255], 3), Some(Kind::Script));
        assert_eq!(action(123, [0, 0, 18, 0, 0, 255], 3), Some(Kind::Script), "insert_entry into a script table");
        assert_eq!(set(67, other, 9), Some(Kind::Script), "the actions of a sensor");
        assert_eq!(action(122, [0, 0, 44, 1, 0, 255], 1), Some(Kind::Script));
        assert_eq!(set(112, [0, 0, 19, 10, 0, 255], 2), Some(Kind::Limit), "credit");
        assert_eq!(action(115, [0, 0, 19, 40, 0, 255], 1), Some(Kind::Limit), "a token");
        assert_eq!(set(19, [0, 0, 20, 0, 0, 255], 7), Some(Kind::KeyChange), "a port's password");
        assert_eq!(set(19, [0, 0, 20, 0, 0, 255], 2), None, "a port's default mode");
        assert_eq!(set(6, [0, 0, 14, 0, 0, 255], 4), Some(Kind::Tariff));
        assert_eq!(action(11, [0, 0, 11, 0, 0, 255], 1), None, "special days may be prepared");
        assert_eq!(action(1, [0, 1, 24, 4, 0, 255], 1), Some(Kind::Disconnect), "a valve behind the meter");
        assert_eq!(action(72, [0, 1, 24, 1, 0, 255], 8), Some(Kind::KeyChange), "and its keys");
        assert_eq!(action(72, [0, 1, 24, 1, 0, 255], 5), None);
    }

    #[test]
    fn ordinary_work_is_not_held_up() {
        assert_eq!(action(8, [0, 0, 1, 0, 0, 255], 6), None);
        assert_eq!(set(8, [0, 0, 1, 0, 0, 255], 2), None);
        assert_eq!(action(40, [0, 0, 25, 9, 0, 255], 1), None);
        assert_eq!(action(18, [0, 0, 44, 0, 0, 255], 2), None);
        assert_eq!(set(20, [0, 0, 13, 0, 0, 255], 6), None);
        assert_eq!(set(7, [1, 0, 99, 1, 0, 255], 4), None);
    }

    #[test]
    fn lists_accesses_and_unconfirmed_services_hide_nothing() {
        let harmless = MethodDescriptor { class_id: 8, logical_name: LogicalName::CLOCK, method: 3 };
        let cut = MethodDescriptor { class_id: 70, logical_name: LogicalName(RELAY), method: 1 };
        let list = [(harmless, None), (cut, None)];
        let limit =
            AttributeDescriptor { class_id: 71, logical_name: LogicalName([0, 0, 17, 0, 0, 255]), attribute: 4 };
        let access = |one| {
            Item::Access(Box::new(AccessList {
                items: Box::new([one]),
                break_on_error: false,
                self_descriptive: false,
            }))
        };

        assert_eq!(kind_of(&Item::Actions(Box::new(list))), Some(Kind::Disconnect));
        assert_eq!(kind_of(&Item::Unconfirmed(Box::new(Item::Action(cut, None)))), Some(Kind::Disconnect));
        assert_eq!(kind_of(&access(Access::Action(cut, None))), Some(Kind::Disconnect));
        assert_eq!(kind_of(&access(Access::Set(limit, [0].into()))), Some(Kind::Limit));
        assert_eq!(kind_of(&access(Access::Get(limit, None))), None);
    }

    #[test]
    fn critical_item_beside_harmless_ones_is_found() {
        let harmless = AttributeDescriptor { class_id: 8, logical_name: LogicalName::CLOCK, attribute: 2 };
        let cut = AttributeDescriptor { class_id: 71, logical_name: LogicalName([0, 0, 17, 0, 0, 255]), attribute: 4 };
        let item = Item::Set(Box::new([(harmless, [0].into()), (cut, [0].into())]));

        assert_eq!(kind_of(&item), Some(Kind::Limit));
    }
}
