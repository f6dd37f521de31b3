//! Addresses as text, with their transport; what TLS needs beside them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipss_session::{Parity, SerialSettings};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rustls::ClientConfig;

use crate::reactor::Endpoint;
use crate::reactor::endpoint::TlsEndpoint;
use crate::reactor::tls::{Identity, TlsServer, client_config, role_in, server_config};

/// See `_core.pyi`.
#[pyclass(name = "Tls", module = "ipss_headend._core", frozen)]
pub struct PyTls {
    config: Arc<ClientConfig>,
    name: Option<String>,
    #[pyo3(get)]
    role: Option<String>,
}

#[pymethods]
impl PyTls {
    #[new]
    #[pyo3(signature = (authorities, *, certificate=None, key=None, name=None))]
    fn new(
        authorities: PathBuf,
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
        name: Option<String>,
    ) -> PyResult<Self> {
        let identity = identity(certificate.as_deref(), key.as_deref())?;
        let config = client_config(&authorities, identity).map_err(wrong)?;
        let role = certificate.as_deref().map(role_in).transpose().map_err(wrong)?.flatten();
        Ok(Self { config: Arc::new(config), name, role })
    }
}

/// See `_core.pyi`.
#[pyclass(name = "TlsServer", module = "ipss_headend._core", frozen)]
pub struct PyTlsServer(pub TlsServer);

#[pymethods]
impl PyTlsServer {
    #[new]
    #[pyo3(signature = (certificate, key, *, authorities=None, roles=Vec::new()))]
    fn new(certificate: PathBuf, key: PathBuf, authorities: Option<PathBuf>, roles: Vec<String>) -> PyResult<Self> {
        if !roles.is_empty() && authorities.is_none() {
            return Err(PyValueError::new_err("roles are of certificates: name the authorities that issue them"));
        }
        let identity = Identity { certificate: &certificate, key: &key };
        let config = server_config(identity, authorities.as_deref()).map_err(wrong)?;
        Ok(Self(TlsServer { config: Arc::new(config), roles: roles.into() }))
    }
}

/// The endpoint that a text names: `HOST:PORT` and `tcp://`, `udp://`, `tls://HOST:PORT`, all numeric, or
/// `serial:///dev/ttyUSB0?baud=9600&data_bits=8&parity=none&stop_bits=1`.
pub fn endpoint(text: &str, tls: Option<&PyTls>) -> Result<Endpoint, String> {
    let (transport, rest) = text.split_once("://").unwrap_or(("tcp", text));
    if transport == "serial" {
        return serial(rest);
    }
    let address: SocketAddr =
        rest.parse().map_err(|_| format!("'{rest}' is not a numeric host and a port, as 10.0.0.7:4059"))?;
    match (transport, tls) {
        ("tcp", _) => Ok(Endpoint::Tcp(address)),
        ("udp", _) => Ok(Endpoint::Udp(address)),
        ("tls", Some(tls)) => {
            let name = tls.name.clone().unwrap_or_else(|| address.ip().to_string());
            let wanted = name.clone().try_into().map_err(|_| format!("'{name}' is no name that a certificate has"))?;
            Ok(Endpoint::Tls(Arc::new(TlsEndpoint { address, name: wanted, config: tls.config.clone() })))
        }
        ("tls", None) => Err("tls:// needs to know whom to trust".into()),
        (other, _) => Err(format!("'{other}' is not one of tcp, udp, tls, serial")),
    }
}

fn serial(text: &str) -> Result<Endpoint, String> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    if !path.starts_with('/') {
        return Err(format!("'{path}' is not the path of a device file, as /dev/ttyUSB0"));
    }
    let mut settings = SerialSettings::new(9_600);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let number = || value.parse::<u32>().map_err(|_| format!("{name}: '{value}' is not a number"));
        let within = |low: u32, high: u32| match number()? {
            number if (low..=high).contains(&number) => Ok(number),
            number => Err(format!("{name}: {number} is not from {low} to {high}")),
        };
        match name {
            "baud" => settings.baud = within(50, 4_000_000)?,
            "data_bits" => settings.data_bits = within(5, 8)? as u8,
            "stop_bits" => settings.stop_bits = within(1, 2)? as u8,
            "parity" => {
                settings.parity = match value {
                    "none" => Parity::None,
                    "even" => Parity::Even,
                    "odd" => Parity::Odd,
                    other => return Err(format!("parity: '{other}' is not one of none, even, odd")),
                }
            }
            other => return Err(format!("'{other}' is not one of baud, data_bits, parity, stop_bits")),
        }
    }
    Ok(Endpoint::serial(path, settings))
}

fn identity<'a>(certificate: Option<&'a Path>, key: Option<&'a Path>) -> PyResult<Option<Identity<'a>>> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(Identity { certificate, key })),
        _ => Err(PyValueError::new_err("a certificate and its key go together")),
    }
}

fn wrong(error: std::io::Error) -> PyErr {
    PyValueError::new_err(error.to_string())
}
