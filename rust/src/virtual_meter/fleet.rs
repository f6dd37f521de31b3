//! A fleet of virtual meters: who they are, where they answer, with which keys, and what is wrong with them.
//!
//! Everything follows from the seed, the keys too: they protect nothing and are for simulation only.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;

use ipss_dlms::profile::{Authentication, Ciphering};
use ipss_dlms::security::{Credentials, Key, PrivateKey, Protection, Suite};
use ipss_session::WallTime;
use sha2::{Digest, Sha256};

use super::VirtualMeter;
use super::calendar::Zone;
use super::consumption::Kind;
use super::fault::{Fault, Faults, share};
use super::random::{below, between, noise};

/// What is wrong with a specification, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpecError(String);

impl SpecError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// How many of each kind, in relative weights.
///
/// Read from text: `household=80%,business=12%,pv=8%`, which must come to 100 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Thousandths of a per cent, in the order of [`Kind::ALL`].
    shares: [u32; 3],
}

impl Default for Mix {
    /// 80 % households, 12 % businesses, 8 % with solar panels.
    fn default() -> Self {
        Self { shares: [80_000, 12_000, 8_000] }
    }
}

impl FromStr for Mix {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut shares = [0; 3];
        for item in text.split(',').map(str::trim) {
            let (name, amount) = item.split_once('=').unwrap_or((item, ""));
            let kind = Kind::ALL.iter().position(|kind| kind.name() == name).ok_or_else(|| {
                let names = Kind::ALL.map(Kind::name).join(", ");
                SpecError::new(format!("mix: '{name}' is not a kind of meter; use {names}"))
            })?;
            shares[kind] = share(amount)
                .ok_or_else(|| SpecError::new(format!("mix: {name}: '{amount}' is not a share; write 12.5%")))?;
        }
        if shares.iter().sum::<u32>() != 100_000 {
            return Err(SpecError::new("mix: the shares do not come to 100 %"));
        }
        Ok(Self { shares })
    }
}

/// How the meters' associations with client 1 (management) and client 2 (reading) are secured. The public client,
/// 16, needs no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Security {
    /// How both ends prove who they are.
    pub authentication: Authentication,
    /// The security suite of the keys.
    pub suite: Suite,
    /// How APDUs are protected.
    pub protection: Protection,
    /// In which APDUs.
    pub ciphering: Ciphering,
    /// Whether the head-end is to bring a dedicated key.
    pub dedicated: bool,
}

impl Default for Security {
    /// HLS-GMAC, authenticated and encrypted, service-specific APDUs under the global key.
    fn default() -> Self {
        Self {
            authentication: Authentication::HlsGmac,
            suite: Suite::Zero,
            protection: Protection::Both,
            ciphering: Ciphering::ServiceSpecific,
            dedicated: false,
        }
    }
}

/// What a fleet is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetSpec {
    /// Source of everything that looks random.
    pub seed: u64,
    /// How many meters, 1 to 1,000,000.
    pub count: u32,
    /// Address of meter 0; the others follow. All within 127.0.0.1 to 127.255.255.254.
    pub first_address: Ipv4Addr,
    /// Port of all of them; 4059 is the registered port of DLMS.
    pub port: u16,
    /// What stands in front of their addresses in the fleet file: the transport, such as `dlms+udp://`; nothing for TCP.
    pub scheme: &'static str,
    /// How associations are secured.
    pub security: Security,
    /// How many meters are behind one address, 1 to 1,000, as logical devices of one concentrator.
    pub behind: u32,
    /// Octets of the largest APDU that the meters send and take, 128 to 65,535. What is longer goes in blocks.
    pub max_pdu: u16,
    /// How many of each kind.
    pub mix: Mix,
    /// Which meters misbehave.
    pub faults: Faults,
    /// The moment from which the meters have measured and captured.
    pub start: WallTime,
    /// Civil time that they show.
    pub zone: Zone,
    /// Latitude in whole degrees, north positive, -60 to 60: when the sun rises.
    pub latitude_deg: i8,
    /// Capture period of the load profile in seconds: 60, 300, 600, 900, 1800 or 3600.
    pub capture_period_s: u32,
    /// How many lines the load profile holds before the oldest make room.
    pub profile_entries: u32,
    /// The most that a clock gains or loses, in parts per million, at most 1,000.
    pub drift_ppm: u16,
}

impl Default for FleetSpec {
    fn default() -> Self {
        Self {
            seed: 1,
            count: 1_000,
            first_address: Ipv4Addr::new(127, 0, 1, 1),
            port: 4059,
            scheme: "",
            behind: 1,
            security: Security::default(),
            // A day of load profile fits.
            max_pdu: 4_096,
            mix: Mix::default(),
            faults: Faults::none(),
            start: WallTime(1_767_225_600 * WallTime::SECOND),
            zone: Zone { deviation_min: -60, daylight_saving: true },
            latitude_deg: 50,
            capture_period_s: 900,
            profile_entries: 366 * 96,
            drift_ppm: 5,
        }
    }
}

/// Who a virtual meter is and what opens it. The keys are derived from the fleet's seed: for simulation only.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name in the fleet file: `virtual-00001` is meter 0.
    pub name: String,
    /// Three letters of the manufacturer, two octets of the fleet, three of the meter.
    pub system_title: [u8; 8],
    /// Global unicast encryption key.
    pub encryption_key: [u8; 16],
    /// Authentication key.
    pub authentication_key: [u8; 16],
    /// Password for low-level security, 16 characters.
    pub password: [u8; 16],
    /// Serial number, 10 digits: the COSEM object 0-0:96.1.0*255.
    pub serial: [u8; 10],
    /// COSEM logical device name: manufacturer and serial number, 16 octets.
    pub device_name: [u8; 16],
}

/// Shows no key.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A checked specification, shared by the fleet's meters.
#[derive(Debug)]
pub struct Fleet {
    spec: FleetSpec,
}

/// The manufacturer of all virtual meters.
const MANUFACTURER: [u8; 3] = *b"VRT";

/// First line of the file that [`Fleet::csv`] writes.
pub const CSV_HEADER: &str = "name,address,system_title,encryption_key,authentication_key,password,client,server,auth,suite,protection,dedicated,model,group,logical_device_name,master_key";

impl Fleet {
    /// Check a specification.
    ///
    /// # Errors
    /// The first field that cannot be, with what to write instead.
    pub fn new(spec: FleetSpec) -> Result<Arc<Self>, SpecError> {
        let wrong = |message: String| Err(SpecError(message));
        if !(1..=1_000_000).contains(&spec.count) {
            return wrong(format!("count: {} is not a fleet's size; use 1 to 1000000", spec.count));
        }
        let (first, last) = (u32::from(Ipv4Addr::new(127, 0, 0, 1)), u32::from(Ipv4Addr::new(127, 255, 255, 254)));
        let begin = u32::from(spec.first_address);
        if begin < first || begin > last || last - begin < spec.count - 1 {
            return wrong(format!(
                "first_address: {} meters from {} on do not fit into 127.0.0.1 to 127.255.255.254",
                spec.count, spec.first_address
            ));
        }
        if !(1..=1_000).contains(&spec.behind) {
            return wrong(format!("behind: {} meters behind one address; use 1 to 1000", spec.behind));
        }
        if spec.port == 0 {
            return wrong("port: 0 is not a port; use 4059 for DLMS".into());
        }
        if spec.max_pdu < 128 {
            return wrong(format!("max_pdu: {} is too small for an association; use 128 to 65535", spec.max_pdu));
        }
        if spec.security.dedicated && spec.security.protection == Protection::None {
            return wrong("security: a dedicated key protects something or is left out; choose a protection".into());
        }
        if spec.security.authentication == Authentication::HlsEcdsa && spec.security.suite == Suite::Zero {
            return wrong("security: suite 0 has no signatures; choose suite 1 or 2 for hls-ecdsa".into());
        }
        if spec.security.authentication == Authentication::HlsVendor {
            return wrong("security: mechanism 2 is a manufacturer's own; virtual meters have no manufacturer".into());
        }
        if ![60, 300, 600, 900, 1_800, 3_600].contains(&spec.capture_period_s) {
            return wrong(format!(
                "capture_period_s: {} is not a capture period; use 60, 300, 600, 900, 1800 or 3600",
                spec.capture_period_s
            ));
        }
        if spec.profile_entries == 0 {
            return wrong("profile_entries: a profile holds at least 1 line".into());
        }
        let deviations = if spec.zone.daylight_saving { -180..=60 } else { -840..=720 };
        if spec.zone.deviation_min % 15 != 0 || !deviations.contains(&spec.zone.deviation_min) {
            return wrong(format!(
                "deviation_min: {} is not a time zone; use a multiple of 15 from {} to {} (minutes from local time to UTC)",
                spec.zone.deviation_min,
                deviations.start(),
                deviations.end()
            ));
        }
        if !(-60..=60).contains(&spec.latitude_deg) {
            return wrong(format!(
                "latitude_deg: {} is beyond the polar night's reach; use -60 to 60",
                spec.latitude_deg
            ));
        }
        if spec.drift_ppm > 1_000 {
            return wrong(format!("drift_ppm: {} is no clock; use 0 to 1000", spec.drift_ppm));
        }
        // 1980 to 2100: the years that the calendar and the registers' width are made for.
        if !(315_532_800..4_102_444_800).contains(&(spec.start.0.div_euclid(WallTime::SECOND))) {
            return wrong("start: the history begins between 1980 and 2100".into());
        }
        Ok(Arc::new(Self { spec }))
    }

    /// The specification.
    pub fn spec(&self) -> &FleetSpec {
        &self.spec
    }

    /// How many meters.
    pub fn count(&self) -> u32 {
        self.spec.count
    }

    /// Where meter `index` answers.
    pub fn address(&self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.spec.first_address).wrapping_add(index / self.spec.behind))
    }

    /// The service access point of meter `index`: 1 where it is alone at its address.
    pub fn server(&self, index: u32) -> u16 {
        if self.spec.behind == 1 { 1 } else { FIRST_SERVER + (index % self.spec.behind) as u16 }
    }

    /// The meters behind one address with meter `index`.
    pub fn neighbours(&self, index: u32) -> std::ops::Range<u32> {
        let first = index - index % self.spec.behind;
        first..(first + self.spec.behind).min(self.spec.count)
    }

    /// The first meter that answers at an address, if one of this fleet does.
    pub fn index_of(&self, address: Ipv4Addr) -> Option<u32> {
        let place = u32::from(address).checked_sub(u32::from(self.spec.first_address))?;
        place.checked_mul(self.spec.behind).filter(|index| *index < self.spec.count)
    }

    /// What stands behind meter `index`.
    pub fn kind(&self, index: u32) -> Kind {
        let mut draw = below(noise(self.spec.seed, 9_002, i64::from(index)), 100_000);
        for (kind, share) in Kind::ALL.into_iter().zip(self.spec.mix.shares) {
            if draw < share {
                return kind;
            }
            draw -= share;
        }
        Kind::Household
    }

    /// What is wrong with meter `index`.
    pub fn fault(&self, index: u32) -> Option<Fault> {
        self.spec.faults.of(self.spec.seed, index)
    }

    /// How long a meter with [`Fault::Slow`] takes for each answer: half a second to five seconds.
    pub fn slowness(&self, index: u32) -> std::time::Duration {
        std::time::Duration::from_millis(500 + u64::from(below(noise(self.spec.seed, 9_003, i64::from(index)), 4_500)))
    }

    /// Meter `index` as it comes from the factory. For an index below [`Fleet::count`].
    pub fn meter(self: &Arc<Self>, index: u32) -> VirtualMeter {
        VirtualMeter::new(Arc::clone(self), index)
    }

    /// Who meter `index` is. Computed each time; for simulation only.
    pub fn identity(&self, index: u32) -> Identity {
        let [.., fleet_high, fleet_low] = noise(self.spec.seed, 9_004, 0).to_be_bytes();
        let [_, high, middle, low] = index.to_be_bytes();
        let [v, r, t] = MANUFACTURER;
        let number = u64::from(u16::from_be_bytes([fleet_high, fleet_low])) * 100_000;
        let digits = format!("{:010}", number + u64::from(index) + 1);
        let mut serial = [b'0'; 10];
        serial.copy_from_slice(digits.as_bytes());
        let mut device_name = *b"VRT0000000000000";
        device_name[6..].copy_from_slice(&serial);
        let password = self.secret(index, "password");
        Identity {
            name: format!("virtual-{:05}", u64::from(index) + 1),
            system_title: [v, r, t, fleet_high, fleet_low, high, middle, low],
            encryption_key: self.secret(index, "encryption"),
            authentication_key: self.secret(index, "authentication"),
            password: password.map(|octet| b"0123456789abcdefghijkmnpqrstuvwx"[usize::from(octet % 32)]),
            serial,
            device_name,
        }
    }

    /// A secret of one meter: the first half of SHA-256 over the seed, the meter and the purpose.
    fn secret(&self, index: u32, purpose: &str) -> [u8; 16] {
        let mut secret = [0; 16];
        secret.copy_from_slice(&self.octets(index, purpose)[..16]);
        secret
    }

    /// The encryption key and the authentication key of meter `index`, as its suite has them.
    pub fn keys(&self, index: u32) -> (Key, Key) {
        (self.key(index, "encryption"), self.key(index, "authentication"))
    }

    /// The master key of meter `index`, under which new keys come.
    pub fn master_key(&self, index: u32) -> Key {
        self.key(index, "master")
    }

    fn key(&self, index: u32, purpose: &str) -> Key {
        match self.spec.security.suite {
            Suite::Two => Key::Aes256(self.octets(index, purpose)),
            _ => Key::Aes128(self.secret(index, purpose)),
        }
    }

    /// The private keys of the head-end and of meter `index`; none in suite 0.
    fn private_keys(&self, index: u32) -> Option<(PrivateKey, PrivateKey)> {
        let suite = self.spec.security.suite;
        let key = |purpose: &str| {
            let mut octets = self.octets(index, purpose).to_vec();
            octets.extend_from_slice(&self.octets(index, &format!("{purpose}, continued")));
            octets.truncate(suite.coordinate_octets()?);
            // Below the curve's order, whatever the hash is.
            octets[0] &= 0x7F;
            PrivateKey::from_slice(suite, &octets).ok()
        };
        Some((key("head-end signs")?, key("meter signs")?))
    }

    /// The key pairs of meter `index`, as it holds them, and as its head-end does.
    pub fn credentials(&self, index: u32) -> Option<(Credentials, Credentials)> {
        let (head_end, meter) = self.private_keys(index)?;
        let hold = |own: &PrivateKey, peer: &PrivateKey| Credentials {
            signing: Some(own.clone()),
            peer_signing: Some(peer.public_key()),
            ..Credentials::default()
        };
        Some((hold(&meter, &head_end), hold(&head_end, &meter)))
    }

    fn octets(&self, index: u32, purpose: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"ipss-headend virtual meter, for simulation only\0");
        hash.update(self.spec.seed.to_be_bytes());
        hash.update(index.to_be_bytes());
        hash.update(purpose.as_bytes());
        hash.finalize().into()
    }

    /// The clock of meter `index`: microseconds ahead at the start of its history, and tenths of a part per million
    /// that it gains.
    pub(super) fn clock_error(&self, index: u32) -> (i64, i32) {
        let draw = noise(self.spec.seed, 9_005, i64::from(index));
        let most = i64::from(self.spec.drift_ppm) * 10;
        let drift = between(draw, -most, most) as i32;
        let offset_us = if self.fault(index) == Some(Fault::BadClock) {
            let wrong_s = between(draw << 20, 3_600, 40 * 86_400);
            if draw & 1 == 0 { -wrong_s * WallTime::SECOND } else { wrong_s * WallTime::SECOND }
        } else if most == 0 {
            0
        } else {
            between(draw << 20, -1_500_000, 1_500_000)
        };
        (offset_us, drift)
    }

    /// The fleet file that the head-end imports: one line a meter, columns as [`CSV_HEADER`] names them.
    ///
    /// The model is `virtual`, the group is the kind. Meters that dial in have no address in it.
    pub fn csv(&self, dials_in: bool) -> String {
        let mut csv = String::with_capacity(self.spec.count as usize * 180);
        csv.push_str(CSV_HEADER);
        if self.spec.security.authentication == Authentication::HlsEcdsa {
            csv.push_str(",private_key,peer_public_key");
        }
        csv.push('\n');
        let security = self.spec.security;
        let authentication = security.authentication.name();
        let suite = security.suite.number();
        let signs = security.authentication == Authentication::HlsEcdsa;
        let protection = match security.protection {
            Protection::None => "none",
            Protection::Authenticated => "auth",
            Protection::Encrypted => "enc",
            Protection::Both => "auth+enc",
        };
        let dedicated = if security.dedicated { "yes" } else { "no" };
        for index in 0..self.spec.count {
            let identity = self.identity(index);
            let password = identity.password.map(char::from).iter().collect::<String>();
            let FleetSpec { scheme, port, .. } = self.spec;
            let address = if dials_in { String::new() } else { format!("{scheme}{}:{port}", self.address(index)) };
            // Writing into a string cannot fail.
            let (encryption_key, authentication_key) = self.keys(index);
            let _ = write!(
                csv,
                "{},{address},{},{},{},{password},1,{},{authentication},{suite},{protection},{dedicated},virtual,{},{},{}",
                identity.name,
                hex(&identity.system_title),
                hex(encryption_key.octets()),
                hex(authentication_key.octets()),
                self.server(index),
                self.kind(index).name(),
                identity.device_name.map(char::from).iter().collect::<String>(),
                hex(self.master_key(index).octets()),
            );
            if let Some((head_end, meter)) = self.private_keys(index).filter(|_| signs) {
                let _ = write!(csv, ",{},{}", hex(&head_end.octets()), hex(&meter.public_key().octets()));
            }
            csv.push('\n');
        }
        csv
    }
}

/// The first service access point of meters behind a concentrator; 1 is its own.
const FIRST_SERVER: u16 = 16;

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(octets.len() * 2), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn fleet(seed: u64, count: u32) -> Arc<Fleet> {
        Fleet::new(FleetSpec { seed, count, ..FleetSpec::default() }).unwrap()
    }

    #[test]
    fn no_two_meters_share_a_key_a_title_or_an_address() {
        let (one, other) = (fleet(1, 15_000), fleet(2, 15_000));
        let mut keys = HashSet::new();
        let mut titles = HashSet::new();
        let mut serials = HashSet::new();
        let mut addresses = HashSet::new();

        for fleet in [&one, &other] {
            for index in 0..fleet.count() {
                let identity = fleet.identity(index);
                assert!(keys.insert(identity.encryption_key) && keys.insert(identity.authentication_key));
                assert!(keys.insert(identity.password));
                assert!(titles.insert(identity.system_title) && serials.insert(identity.serial));
            }
        }
        for index in 0..one.count() {
            assert!(addresses.insert(one.address(index)));
            assert_eq!(one.index_of(one.address(index)), Some(index));
        }
        assert_eq!(one.index_of(Ipv4Addr::new(127, 0, 1, 0)), None);
        assert_eq!(one.index_of(one.address(15_000)), None);
    }

    #[test]
    fn no_key_is_all_zero_or_counts_up() {
        let fleet = fleet(1, 2_000);

        for index in 0..fleet.count() {
            let identity = fleet.identity(index);
            for key in [identity.encryption_key, identity.authentication_key] {
                assert!(key.iter().collect::<HashSet<_>>().len() > 4);
                assert!(!key.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)));
                assert!(!key.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(0x11)));
            }
        }
    }

    #[test]
    fn same_seed_makes_the_same_file() {
        assert_eq!(fleet(7, 50).csv(false), fleet(7, 50).csv(false));
        assert_ne!(fleet(7, 50).csv(false), fleet(8, 50).csv(false));
    }

    #[test]
    fn fleet_file_has_a_line_a_meter_with_every_column() {
        let csv = fleet(7, 3).csv(false);
        let lines: Vec<&str> = csv.lines().collect();

        assert_eq!(lines.len(), 4);
        for line in &lines {
            assert_eq!(line.split(',').count(), CSV_HEADER.split(',').count());
        }
        let second: Vec<&str> = lines[2].split(',').collect();
        assert_eq!(
            (second[0], second[1], second[2].len(), second[3].len()),
            ("virtual-00002", "127.0.1.2:4059", 16, 32)
        );
        assert!(!format!("{:?}", fleet(7, 3).identity(1)).contains(second[3]));
        let dialling = fleet(7, 3).csv(true);
        let second: Vec<&str> = dialling.lines().nth(2).unwrap().split(',').collect();
        assert_eq!((second[1], second[14].as_bytes()), ("", &fleet(7, 3).identity(1).device_name[..]));
    }

    #[test]
    fn mix_is_met_by_the_fleet() {
        let spec = FleetSpec { count: 20_000, mix: "household=50%,pv=50%".parse().unwrap(), ..FleetSpec::default() };
        let fleet = Fleet::new(spec).unwrap();

        let panels = (0..20_000).filter(|index| fleet.kind(*index) == Kind::Photovoltaic).count();

        assert!((9_600..10_400).contains(&panels));
        assert_eq!((0..20_000).filter(|index| fleet.kind(*index) == Kind::Business).count(), 0);
    }

    #[test]
    fn impossible_fleets_are_refused_with_the_remedy() {
        let spec = FleetSpec::default;
        let unprotected = Security { protection: Protection::None, dedicated: true, ..Security::default() };
        let cases = [
            (FleetSpec { security: unprotected, ..spec() }, "security: a dedicated key"),
            (FleetSpec { count: 0, ..spec() }, "count: 0"),
            (FleetSpec { first_address: Ipv4Addr::new(10, 0, 0, 1), ..spec() }, "first_address: "),
            (FleetSpec { first_address: Ipv4Addr::new(127, 255, 255, 0), ..spec() }, "first_address: 1000 meters"),
            (FleetSpec { port: 0, ..spec() }, "port: 0"),
            (FleetSpec { max_pdu: 64, ..spec() }, "max_pdu: 64"),
            (FleetSpec { capture_period_s: 7, ..spec() }, "capture_period_s: 7"),
            (FleetSpec { profile_entries: 0, ..spec() }, "profile_entries: "),
            (FleetSpec { zone: Zone { deviation_min: -61, daylight_saving: true }, ..spec() }, "deviation_min: -61"),
            (FleetSpec { latitude_deg: 70, ..spec() }, "latitude_deg: 70"),
            (FleetSpec { drift_ppm: 5_000, ..spec() }, "drift_ppm: 5000"),
            (FleetSpec { start: WallTime::UNKNOWN, ..spec() }, "start: "),
        ];
        for (spec, message) in cases {
            let error = Fleet::new(spec).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
        assert!("household=80%".parse::<Mix>().unwrap_err().to_string().contains("100 %"));
        assert!("flat=100%".parse::<Mix>().unwrap_err().to_string().contains("household, business, pv"));
    }
}
