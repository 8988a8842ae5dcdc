//! Addresses as the messages of this layer carry them.

use std::net::{IpAddr, SocketAddr};

use prost::Message;
use x0x_core::{DecodeError, fixed_bytes};

/// An address on the wire.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Address {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) ip: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub(crate) port: u32,
}

impl From<&SocketAddr> for Address {
    fn from(address: &SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        Self { ip, port: u32::from(address.port()) }
    }
}

impl TryFrom<&Address> for SocketAddr {
    type Error = DecodeError;

    fn try_from(address: &Address) -> Result<Self, DecodeError> {
        let ip = match address.ip.len() {
            4 => IpAddr::from(fixed_bytes::<4>(&address.ip, "ip")?),
            16 => IpAddr::from(fixed_bytes::<16>(&address.ip, "ip")?),
            _ => return Err(DecodeError::Field("ip")),
        };
        let port = u16::try_from(address.port).map_err(|_| DecodeError::Field("port"))?;
        Ok(Self::new(ip, port))
    }
}

/// Reads at most `max` addresses.
pub(crate) fn read_addresses(list: &[Address], max: usize) -> Result<Vec<SocketAddr>, DecodeError> {
    if list.len() > max {
        return Err(DecodeError::Field("addresses"));
    }
    list.iter().map(SocketAddr::try_from).collect()
}
