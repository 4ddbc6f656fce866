//! Sockets of the doors: bound early, so that a taken port is said before anything else happens,
//! and opened late, when everything behind them stands.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait for `accept`.
const BACKLOG: i32 = 1024;
/// Datagrams that may wait, in bytes, as far as the system allows: all of a door's clients share one socket.
const DATAGRAM_BYTES: usize = 4 << 20;

/// Why a door stays shut.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error(
        "listeners.{door}: {address} is taken by another program; end it, or bind elsewhere with \
         --set listeners.{door}.bind=127.0.0.1:0"
    )]
    Taken {
        door: &'static str,
        address: SocketAddr,
    },
    #[error("listeners.{door}: cannot listen on {address}: {source}")]
    Refused {
        door: &'static str,
        address: SocketAddr,
        source: io::Error,
    },
}

/// A bound socket that does not accept yet.
pub(crate) struct Door {
    name: &'static str,
    address: SocketAddr,
    socket: Socket,
}

/// Binds `address` for the door `name`, a UDP port for `quic`. Port 0 takes a free one.
pub(crate) fn bind(name: &'static str, address: SocketAddr) -> Result<Door, ListenError> {
    let failed = |source: io::Error| error(name, address, source);
    let open = || -> io::Result<(Socket, SocketAddr)> {
        let domain = Domain::for_address(address);
        let socket = if name == "quic" {
            // Without the option of below: two programs would share the port.
            let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_recv_buffer_size(DATAGRAM_BYTES)?;
            socket.set_send_buffer_size(DATAGRAM_BYTES)?;
            socket
        } else {
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
            // The port answers again right after a kill, while old connections still fade away.
            socket.set_reuse_address(true)?;
            socket
        };
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let bound = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok((socket, bound))
    };
    let (socket, address) = open().map_err(failed)?;
    Ok(Door {
        name,
        address,
        socket,
    })
}

fn error(door: &'static str, address: SocketAddr, source: io::Error) -> ListenError {
    match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken { door, address },
        _ => ListenError::Refused {
            door,
            address,
            source,
        },
    }
}

impl Door {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Where it is bound; the port is the real one.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets connections arrive.
    pub(crate) fn open(self) -> Result<TcpListener, ListenError> {
        self.socket
            .listen(BACKLOG)
            .map_err(|source| error(self.name, self.address, source))?;
        Ok(self.socket.into())
    }

    /// A door of datagrams, which arrive since it was bound.
    pub(crate) fn open_udp(self) -> UdpSocket {
        self.socket.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_port_is_said_with_the_key_to_change() {
        let first = bind("tcp", "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.address();
        assert_ne!(address.port(), 0);
        let _open = first.open().unwrap();
        let second = bind("kafka", address).and_then(Door::open);
        let sentence = second.map(drop).unwrap_err().to_string();
        assert!(
            sentence.contains("listeners.kafka") && sentence.contains("taken"),
            "{sentence}"
        );
    }
}
