//! A serial line (or a pseudo-terminal): a device file read and written without waiting.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use ipss_session::{Parity, SerialSettings};
use rustix::fs::{Mode, OFlags};
use rustix::termios::{self, ControlModes, OptionalActions, QueueSelector};

use super::endpoint::SerialEndpoint;

/// An open line. Nobody else can open it meanwhile.
#[derive(Debug)]
pub struct SerialLine(OwnedFd);

impl SerialLine {
    /// Open the device file and drive it so. What was received before is discarded.
    ///
    /// # Errors
    /// The file is not there, is no terminal, is in use, or the driver refuses the settings.
    pub fn open(endpoint: &SerialEndpoint) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let said = |error: rustix::io::Errno| {
            let error = io::Error::from(error);
            io::Error::new(error.kind(), format!("{}: {error}", endpoint.path.display()))
        };
        let line = Self(rustix::fs::open(&endpoint.path, flags, Mode::empty()).map_err(said)?);
        termios::ioctl_tiocexcl(&line.0).map_err(said)?;
        line.configure(endpoint.settings)?;
        termios::tcflush(&line.0, QueueSelector::IFlush).map_err(said)?;
        Ok(line)
    }

    /// Drive it so from now on. What is still being sent is not waited for.
    ///
    /// # Errors
    /// The driver refuses the settings.
    pub fn configure(&self, settings: SerialSettings) -> io::Result<()> {
        let mut modes = termios::tcgetattr(&self.0)?;
        modes.make_raw();
        modes.set_speed(settings.baud)?;
        let cleared = ControlModes::CSIZE
            | ControlModes::PARENB
            | ControlModes::PARODD
            | ControlModes::CSTOPB
            | ControlModes::CRTSCTS;
        modes.control_modes &= !cleared;
        // Modem lines say nothing on an optical head or an RS-485 adapter.
        modes.control_modes |= ControlModes::CREAD | ControlModes::CLOCAL;
        modes.control_modes |= match settings.data_bits {
            5 => ControlModes::CS5,
            6 => ControlModes::CS6,
            7 => ControlModes::CS7,
            8 => ControlModes::CS8,
            other => return Err(invalid(format!("{other} data bits; 5 to 8 can be"))),
        };
        modes.control_modes |= match settings.parity {
            Parity::None => ControlModes::empty(),
            Parity::Even => ControlModes::PARENB,
            Parity::Odd => ControlModes::PARENB | ControlModes::PARODD,
        };
        modes.control_modes |= match settings.stop_bits {
            1 => ControlModes::empty(),
            2 => ControlModes::CSTOPB,
            other => return Err(invalid(format!("{other} stop bits; 1 or 2 can be"))),
        };
        Ok(termios::tcsetattr(&self.0, OptionalActions::Now, &modes)?)
    }

    /// What is there to read, `WouldBlock` if nothing.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.0, buffer)?)
    }

    /// Write what the driver takes now.
    pub fn write(&self, octets: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.0, octets)?)
    }
}

impl AsRawFd for SerialLine {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
