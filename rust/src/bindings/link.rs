//! What carries a meter's APDUs, checked as it is made.

use ipss_dlms::link::hdlc::{LARGEST, Parameters};
use ipss_dlms::link::{Framing, GatewayAddress, HdlcConfig, LinkConfig, ModeE};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::meter::{not_one_of, seconds};

/// See `_core.pyi`.
#[pyclass(name = "Link", module = "ipss_headend._core", frozen)]
pub struct PyLink(pub LinkConfig);

#[pymethods]
impl PyLink {
    #[new]
    #[pyo3(signature = (framing="wrapper", *, physical=None, address_size=0, information=1024, window=1, answer_s=5.0,
        retries=3, inter_octet_s=1.5, inactivity_s=120.0, disconnect_first=false, gateway=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        framing: &str,
        physical: Option<u16>,
        address_size: u8,
        information: u16,
        window: u8,
        answer_s: f64,
        retries: u8,
        inter_octet_s: f64,
        inactivity_s: f64,
        disconnect_first: bool,
        gateway: Option<(u8, Vec<u8>)>,
    ) -> PyResult<Self> {
        let framing = match framing {
            "wrapper" => Framing::Wrapper,
            "datagram" => Framing::Datagram,
            "hdlc" | "optical" => Framing::Hdlc(HdlcConfig {
                opening: (framing == "optical").then(ModeE::default),
                physical: bounded("physical", physical, 0x3FFF)?,
                address_size: match address_size {
                    0 | 1 | 2 | 4 => address_size,
                    other => return Err(not_one_of("address_size", &other.to_string(), "0, 1, 2, 4")),
                },
                parameters: Parameters {
                    information_transmit: bounded("information", Some(information.max(8)), LARGEST)?.unwrap_or(LARGEST),
                    information_receive: information.max(8),
                    window_transmit: bounded("window", Some(window.max(1)), 7)?.unwrap_or(7),
                    window_receive: window.max(1),
                },
                answer: seconds("answer_s", answer_s)?,
                retries,
                inter_octet: seconds("inter_octet_s", inter_octet_s)?,
                inactivity: seconds("inactivity_s", inactivity_s)?,
                disconnect_first,
                ..HdlcConfig::default()
            }),
            other => return Err(not_one_of("framing", other, "wrapper, datagram, hdlc, optical")),
        };
        if physical.is_some() && !matches!(framing, Framing::Hdlc(_)) {
            return Err(PyValueError::new_err("physical: only HDLC has physical addresses"));
        }
        let gateway = gateway.map(|(network, device)| GatewayAddress { network, device: device.into() });
        if gateway.as_ref().is_some_and(|gateway| gateway.device.len() > 255) {
            return Err(PyValueError::new_err("gateway: the device's address has more than 255 octets"));
        }
        Ok(Self(LinkConfig { framing, gateway }))
    }
}

fn bounded<N: PartialOrd + std::fmt::Display + Copy>(name: &str, value: Option<N>, most: N) -> PyResult<Option<N>> {
    match value {
        Some(found) if found > most => Err(PyValueError::new_err(format!("{name}: {found} is more than {most}"))),
        value => Ok(value),
    }
}
