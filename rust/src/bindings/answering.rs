//! What virtual meters and virtual devices have in common: a reactor of their own whose sessions answer, each behind
//! an address of its own on one port.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipss_session::{Session, WallTime};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::reactor::counts;
use crate::reactor::{Config, Handle, MioNetwork, Reactor, SubmitError};

/// A reactor whose sessions answer.
pub struct Answering<S: Session> {
    pub handle: Handle<S, MioNetwork>,
    reactor: Mutex<Reactor<S>>,
    pub port: u16,
}

impl<S> Answering<S>
where
    S: Session + Send + 'static,
    S::Work: Clone + Send + 'static,
    S::Control: Send + 'static,
{
    /// Start its threads; nobody listens yet. Port 0 is for the operating system to choose.
    pub fn start(threads: usize, port: u16) -> PyResult<Self> {
        let port = match port {
            0 => TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port(),
            port => port,
        };
        let config = Config {
            threads,
            connects_per_second: 0,
            // Somebody may connect first and associate later, or stay connected without being anybody.
            associate_timeout: Duration::from_secs(3_600),
            identify_timeout: Duration::from_secs(365 * 86_400),
            ..Config::default()
        };
        let reactor = Reactor::start(config)?;
        Ok(Self { handle: reactor.handle().clone(), reactor: Mutex::new(reactor), port })
    }

    /// The reactor, to listen with.
    pub fn reactor(&self) -> MutexGuard<'_, Reactor<S>> {
        self.reactor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The port at all addresses of this machine.
    pub fn everywhere(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.port))
    }

    /// Throw rows away: nobody asked for them, and left to wait they would stop the sessions.
    pub fn discard_rows(&self, name: &str) -> PyResult<()> {
        let rows = self.handle.clone();
        let discard = move || {
            while !rows.finished() {
                drop(rows.take_timeout(Duration::from_secs(1)));
            }
        };
        std::thread::Builder::new().name(name.into()).spawn(discard)?;
        Ok(())
    }

    pub fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        counts(py, &self.handle.stats())
    }

    /// Stop, and wait for the threads.
    pub fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.handle.stop();
        py.detach(|| self.reactor().join())?;
        Ok(())
    }
}

/// The first of the addresses.
pub fn first_address(text: &str) -> PyResult<Ipv4Addr> {
    text.parse().map_err(|_| PyValueError::new_err(format!("first_address: '{text}' is no IPv4 address")))
}

/// What the clock of this machine says.
pub fn wall_now() -> WallTime {
    WallTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as i64)
}

/// What the reactor did not take.
pub fn refused(error: SubmitError) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}
