//! Profiles and meters, checked as they are made.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipss_dlms::head_end::{DataReadout, HeadEnd};
use ipss_dlms::link::ModeE;
use ipss_dlms::profile::{Authentication, Ciphering, Profile};
use ipss_dlms::quirks::QuirkValue;
use ipss_dlms::security::{
    Channel, CounterBlock, Credentials, HighWater, Key, PrivateKey, Protection, PublicKey, Sealer, Suite, SystemTitle,
};
use ipss_session::Limits;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::endpoint::{PyTls, endpoint};
use super::link::PyLink;
use super::modbus::PyModbusProfile;
use crate::reactor::{Hold, NewMeter, Route, Share};
use crate::sessions::{ModbusUnit, Peer, Traced};

/// See `_core.pyi`.
#[pyclass(name = "Profile", module = "ipss_headend._core", frozen)]
pub struct PyProfile(pub Arc<Profile>);

#[pymethods]
impl PyProfile {
    #[new]
    #[pyo3(signature = (*, client=16, server=1, authentication="none", suite=0, protection="none",
        ciphering="service", dedicated=false, shortest_challenge=16, client_title=Vec::new(), max_pdu=65535, with_list=16, range_deviation_min=0,
        range_send_deviation=true, range_date_time_type=false, heartbeat_s=480.0, associate_s=60.0, answer_s=30.0,
        frame_s=30.0, referencing="ln", quirks=Vec::new(), shared=false))]
    #[allow(clippy::too_many_arguments, clippy::fn_params_excessive_bools)]
    fn new(
        client: u16,
        server: u16,
        authentication: &str,
        suite: u8,
        protection: &str,
        ciphering: &str,
        dedicated: bool,
        shortest_challenge: u8,
        client_title: Vec<u8>,
        max_pdu: u16,
        with_list: u16,
        range_deviation_min: i16,
        range_send_deviation: bool,
        range_date_time_type: bool,
        heartbeat_s: f64,
        associate_s: f64,
        answer_s: f64,
        frame_s: f64,
        referencing: &str,
        quirks: Vec<(String, Bound<'_, PyAny>)>,
        shared: bool,
    ) -> PyResult<Self> {
        let mut profile = Profile {
            client,
            server,
            authentication: authentication_named(authentication)?,
            suite: suite_numbered(suite)?,
            shortest_challenge,
            protection: protection_named(protection)?,
            ciphering: match ciphering {
                "service" => Ciphering::ServiceSpecific,
                "general" => Ciphering::General,
                other => return Err(not_one_of("ciphering", other, "service, general")),
            },
            dedicated,
            max_pdu,
            with_list,
            shared,
            heartbeat: seconds("heartbeat_s", heartbeat_s)?,
            ..Profile::public()
        };
        profile.selection.deviation = range_deviation_min;
        profile.selection.send_deviation = range_send_deviation;
        profile.selection.date_time_type = range_date_time_type;
        profile.limits.associate = seconds("associate_s", associate_s)?;
        profile.limits.answer = seconds("answer_s", answer_s)?;
        profile.limits.frame = seconds("frame_s", frame_s)?;
        profile = match referencing {
            "ln" => profile,
            "sn" => profile.with_short_names(),
            other => return Err(not_one_of("referencing", other, "ln, sn")),
        };
        for (name, value) in &quirks {
            set_quirk(&mut profile, name, value)?;
        }
        if !(8..=64).contains(&shortest_challenge) {
            return Err(PyValueError::new_err(format!("shortest_challenge: {shortest_challenge} is not 8 to 64")));
        }
        if profile.authentication == Authentication::HlsEcdsa && profile.suite == Suite::Zero {
            return Err(PyValueError::new_err("suite: 0 has no signatures; hls-ecdsa needs suite 1 or 2"));
        }
        if profile.needs_titles() {
            profile.client_title = SystemTitle::from_slice(&client_title)
                .map_err(|error| PyValueError::new_err(format!("client_title: {}", error.message)))?;
        }
        if max_pdu != 0 && max_pdu < 64 {
            return Err(PyValueError::new_err(format!("max_pdu: {max_pdu} is too small for an answer; 64 or more")));
        }
        Ok(Self(Arc::new(profile)))
    }
}

/// See `_core.pyi`.
#[pyclass(name = "Meter", module = "ipss_headend._core", frozen)]
pub struct PyMeter(Mutex<Option<NewMeter<Peer>>>, Device);

/// Which device a meter is, for the gate.
#[derive(Clone, Debug)]
pub struct Device {
    /// The system title that its session is pinned to; for a Modbus unit what stands for it. Empty without one.
    pub title: Vec<u8>,
    /// The unit identifier of one that speaks Modbus.
    pub unit: Option<u8>,
}

impl PyMeter {
    fn of(meter: u32, session: Peer, route: Route, identities: Vec<Vec<u8>>, trace: bool, device: Device) -> Self {
        let session = if trace { Peer::Traced(Box::new(Traced { meter, session })) } else { session };
        Self(Mutex::new(Some(NewMeter { meter, session, route, identities })), device)
    }

    /// Which device it is.
    pub fn device(&self) -> &Device {
        &self.1
    }

    /// The meter for the reactor; a meter can be added once.
    pub fn take(&self) -> PyResult<NewMeter<Peer>> {
        let mut meter = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        meter.take().ok_or_else(|| PyValueError::new_err("this Meter was added to a reactor already; make a new one"))
    }
}

#[pymethods]
impl PyMeter {
    #[new]
    #[pyo3(signature = (meter, address, profile, *, system_title=Vec::new(), encryption_key=Vec::new(),
        authentication_key=Vec::new(), password=Vec::new(), private_key=Vec::new(), peer_public_key=Vec::new(),
        counters=(0, 0), peer_counter=None, hold_open=true,
        idle_s=30.0, identities=Vec::new(), tls=None, shared=false, gap_s=0.0, trace=false, link=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        meter: u32,
        address: Option<&str>,
        profile: &PyProfile,
        system_title: Vec<u8>,
        encryption_key: Vec<u8>,
        authentication_key: Vec<u8>,
        password: Vec<u8>,
        private_key: Vec<u8>,
        peer_public_key: Vec<u8>,
        counters: (u32, u32),
        peer_counter: Option<u32>,
        hold_open: bool,
        idle_s: f64,
        identities: Vec<Vec<u8>>,
        tls: Option<&PyTls>,
        shared: bool,
        gap_s: f64,
        trace: bool,
        link: Option<&PyLink>,
    ) -> PyResult<Self> {
        let profile = profile.0.clone();
        let wrong = |what: &str, text: String| PyValueError::new_err(format!("meter {meter}: {what}: {text}"));
        let channel = if profile.needs_titles() {
            let title = SystemTitle::from_slice(&system_title).map_err(|error| wrong("system_title", error.message))?;
            if title == profile.client_title {
                return Err(wrong("system_title", format!("{title} is the head-end's own")));
            }
            let channel = if profile.needs_keys() {
                let key = |name: &str, octets: &[u8]| {
                    Key::for_suite(profile.suite, octets).map_err(|error| wrong(name, error.message))
                };
                let encryption_key = key("encryption_key", &encryption_key)?;
                let counters = CounterBlock::new(counters.0, counters.1);
                let own = Sealer::of_suite(profile.suite, profile.client_title, encryption_key, counters)
                    .map_err(|error| wrong("encryption_key", error.message))?;
                let authentication_key = key("authentication_key", &authentication_key)?;
                Channel::new(own, authentication_key, title, HighWater::new(peer_counter))
            } else {
                Channel::without_keys(profile.client_title, title)
            };
            let signing = (!private_key.is_empty())
                .then(|| PrivateKey::from_slice(profile.suite, &private_key))
                .transpose()
                .map_err(|error| wrong("private_key", error.message))?;
            let peer_signing = (!peer_public_key.is_empty())
                .then(|| PublicKey::from_slice(profile.suite, &peer_public_key))
                .transpose()
                .map_err(|error| wrong("peer_public_key", error.message))?;
            Some(channel.with_credentials(Credentials { signing, peer_signing, ..Credentials::default() }))
        } else {
            None
        };
        let session =
            HeadEnd::new(meter, profile, channel, &password).map_err(|error| wrong(error.code, error.message))?;
        let session = if let Some(link) = link { session.with_link(&link.0) } else { session };
        let route = route(address, tls, hold_open, idle_s, shared, gap_s).map_err(|error| wrong("address", error))?;
        Ok(Self::of(meter, Peer::Dlms(session), route, identities, trace, Device { title: system_title, unit: None }))
    }

    #[staticmethod]
    #[pyo3(signature = (meter, address, *, device="", first_baud=300, most_baud=115_200, idle_s=30.0, answer_s=30.0, trace=false))]
    #[allow(clippy::too_many_arguments)]
    fn readout(
        meter: u32,
        address: &str,
        device: &str,
        first_baud: u32,
        most_baud: u32,
        idle_s: f64,
        answer_s: f64,
        trace: bool,
    ) -> PyResult<Self> {
        let wrong = |text: String| PyValueError::new_err(format!("meter {meter}: {text}"));
        if device.len() > 32 || !device.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b' ') {
            return Err(wrong(format!("device: '{device}' is not up to 32 letters and digits")));
        }
        let mode = ModeE { device: device.into(), first_baud, most_baud, ..ModeE::default() };
        let limits = Limits { answer: seconds("answer_s", answer_s)?, ..Limits::default() };
        let route = route(Some(address), None, false, idle_s, false, 0.0)
            .map_err(|error| wrong(format!("address: {error}")))?;
        let session = Peer::Readout(Box::new(DataReadout::new(meter, mode, limits)));
        Ok(Self::of(meter, session, route, Vec::new(), trace, Device { title: Vec::new(), unit: None }))
    }

    #[staticmethod]
    #[pyo3(signature = (meter, address, profile, unit, *, hold_open=true, idle_s=30.0, tls=None, shared=false,
        gap_s=0.0, identity=Vec::new(), trace=false))]
    #[allow(clippy::too_many_arguments)]
    fn modbus(
        meter: u32,
        address: &str,
        profile: &PyModbusProfile,
        unit: u8,
        hold_open: bool,
        idle_s: f64,
        tls: Option<&PyTls>,
        shared: bool,
        gap_s: f64,
        identity: Vec<u8>,
        trace: bool,
    ) -> PyResult<Self> {
        let wrong = |text| PyValueError::new_err(format!("meter {meter}: address: {text}"));
        let route = route(Some(address), tls, hold_open, idle_s, shared, gap_s).map_err(wrong)?;
        // Others speak over the same connection: it is not given up for a unit that is silent.
        let shared = route.shared.is_some();
        let session = Peer::Modbus(Box::new(ModbusUnit::new(meter, unit, profile.0.clone(), shared)));
        Ok(Self::of(meter, session, route, Vec::new(), trace, Device { title: identity, unit: Some(unit) }))
    }
}

/// The route to a meter, by the words of Python's side. A serial line is always shared.
pub fn route(
    address: Option<&str>,
    tls: Option<&PyTls>,
    hold_open: bool,
    idle_s: f64,
    shared: bool,
    gap_s: f64,
) -> Result<Route, String> {
    let Some(text) = address else { return Ok(Route::inbound()) };
    let address = endpoint(text, tls)?;
    let time = |name: &str, value: f64| seconds(name, value).map_err(|error| error.to_string());
    let gap = time("gap_s", gap_s)?;
    let shared = (shared || address.is_serial()).then_some(Share { gap });
    let hold = if hold_open { Hold::Open } else { Hold::OnDemand { idle: time("idle_s", idle_s)? } };
    Ok(Route { address: Some(address), local: None, hold, shared })
}

/// Set a quirk to a bool, an int or a str.
pub fn set_quirk(profile: &mut Profile, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let done = if let Ok(flag) = value.cast::<pyo3::types::PyBool>() {
        profile.set_quirk(name, QuirkValue::Flag(flag.is_true()))
    } else if let Ok(number) = value.extract::<u32>() {
        profile.set_quirk(name, QuirkValue::Number(number))
    } else {
        profile.set_quirk(name, QuirkValue::Word(&value.extract::<String>()?))
    };
    done.map_err(|error| PyValueError::new_err(error.message))
}

/// The mechanism for its name.
pub fn authentication_named(name: &str) -> PyResult<Authentication> {
    Authentication::ALL.into_iter().find(|one| one.name() == name).ok_or_else(|| {
        let known = Authentication::ALL.map(Authentication::name).join(", ");
        not_one_of("authentication", name, &known)
    })
}

/// The suite for its number.
pub fn suite_numbered(number: u8) -> PyResult<Suite> {
    Suite::from_number(number).ok_or_else(|| not_one_of("suite", &number.to_string(), "0, 1, 2"))
}

/// The protection for its name.
pub fn protection_named(name: &str) -> PyResult<Protection> {
    match name {
        "none" => Ok(Protection::None),
        "auth" => Ok(Protection::Authenticated),
        "enc" => Ok(Protection::Encrypted),
        "auth+enc" => Ok(Protection::Both),
        other => Err(not_one_of("protection", other, "none, auth, enc, auth+enc")),
    }
}

/// A duration that was given in seconds.
pub fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| PyValueError::new_err(format!("{name}: {value} is not a time in seconds, 0 or more")))
}

/// A word, or a number, that means nothing.
pub fn not_one_of(name: &str, found: &str, wanted: &str) -> PyErr {
    PyValueError::new_err(format!("{name}: '{found}' is not one of {wanted}"))
}
