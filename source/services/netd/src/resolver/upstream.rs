//! Asking the host's servers.

use super::message::{Answer, Kind, UDP_BYTES_MAX, read_answer, write_query};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// How often all servers are asked, and how long each time is waited: less in all than the program waits for us.
const ROUNDS: usize = 2;
const PATIENCE: Duration = Duration::from_millis(1500);

/// How many packets that answer something else are read before a server is given up: somebody guesses.
const STRANGERS_MAX: usize = 64;

/// What the host's servers say; `Answer::Failed` if none can tell.
pub(super) fn ask(name: &str, kind: Kind) -> Answer {
    let servers = super::name_servers();
    for _ in 0..ROUNDS {
        for server in &servers {
            let said = match over_udp(*server, name, kind) {
                Some(Answer::Truncated) => over_tcp(*server, name, kind),
                other => other,
            };
            match said {
                Some(answer @ (Answer::Records(_) | Answer::NoName)) => return answer,
                Some(Answer::Truncated | Answer::Failed) | None => {}
            }
        }
    }
    Answer::Failed
}

/// A number that nobody can guess. random(4).
fn random_id() -> Option<u16> {
    let mut bytes = [0; 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok()?;
    Some(u16::from_ne_bytes(bytes))
}

fn over_udp(server: SocketAddr, name: &str, kind: Kind) -> Option<Answer> {
    let any: SocketAddr = if server.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    // A port of its own, chosen by the kernel at random, that takes answers from this server alone.
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(server).ok()?;
    let id = random_id()?;
    socket.send(&write_query(id, name, kind)?).ok()?;
    let until = Instant::now() + PATIENCE;
    let mut bytes = [0; UDP_BYTES_MAX * 4];
    for _ in 0..STRANGERS_MAX {
        let left = until
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())?;
        socket.set_read_timeout(Some(left)).ok()?;
        let count = socket.recv(&mut bytes).ok()?;
        if let Some(answer) = read_answer(bytes.get(..count)?, id, name, kind) {
            return Some(answer);
        }
    }
    None
}

fn over_tcp(server: SocketAddr, name: &str, kind: Kind) -> Option<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    let id = random_id()?;
    let query = write_query(id, name, kind)?;
    let length = u16::try_from(query.len()).ok()?;
    stream.write_all(&[&length.to_be_bytes()[..], &query].concat()).ok()?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    // One read after the other, each in time: a server that drips is waited for no longer than this.
    let until = Instant::now() + PATIENCE;
    let mut have = 0;
    while have < bytes.len() {
        if Instant::now() >= until {
            return None;
        }
        match stream.read(bytes.get_mut(have..)?).ok()? {
            0 => return None,
            count => have += count,
        }
    }
    read_answer(&bytes, id, name, kind)
}

#[cfg(test)]
mod tests {
    use super::super::message::{Data, Record, Reply, read_query, write_reply};
    use super::*;

    /// A server that gives so many answers to somebody else's question, and then the right one.
    fn server(strangers: usize) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 512];
            let (count, from) = socket.recv_from(&mut bytes).unwrap();
            let record = Record {
                name: "a.example".to_owned(),
                ttl: 60,
                data: Data::Address([203, 0, 113, 7].into()),
            };
            let query = read_query(&bytes[..count]).unwrap();
            let right = write_reply(&query, &Reply::Records(vec![record]), true).unwrap();
            let mut wrong = right.clone();
            wrong[0] ^= 1;
            (0..strangers).for_each(|_| drop(socket.send_to(&wrong, from)));
            socket.send_to(&right, from).unwrap();
        });
        at
    }

    #[test]
    fn the_last_of_so_many_answers_counts_and_the_one_behind_it_is_not_read() {
        let ask = |strangers| over_udp(server(strangers), "a.example", Kind::A);
        assert!(matches!(ask(STRANGERS_MAX - 1), Some(Answer::Records(records)) if records.len() == 1));
        assert_eq!(ask(STRANGERS_MAX), None);
    }
}
