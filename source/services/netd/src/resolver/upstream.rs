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
    ask_each(&super::name_servers(), name, kind)
}

fn ask_each(servers: &[SocketAddr], name: &str, kind: Kind) -> Answer {
    for _ in 0..ROUNDS {
        for server in servers {
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

    /// The answer to a question: an address that ends so.
    fn answer(question: &[u8], last: u8) -> Vec<u8> {
        let record = Record {
            name: "a.example".to_owned(),
            ttl: 60,
            data: Data::Address([203, 0, 113, last].into()),
        };
        let query = read_query(question).unwrap();
        write_reply(&query, &Reply::Records(vec![record]), true).unwrap()
    }

    fn ends_with(answer: Option<Answer>, last: u8) -> bool {
        let address = Data::Address([203, 0, 113, last].into());
        matches!(answer, Some(Answer::Records(all)) if all.len() == 1 && all[0].data == address)
    }

    /// A server that gives so many answers to somebody else's question, and then the right one.
    fn server(strangers: usize) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 512];
            let (count, from) = socket.recv_from(&mut bytes).unwrap();
            let right = answer(&bytes[..count], 7);
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

    #[test]
    fn who_knows_the_number_but_is_another_server_is_not_heard() {
        let (socket, other) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        let at = socket.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let mut bytes = [0; 512];
            let (count, from) = socket.recv_from(&mut bytes).unwrap();
            // It may be told that nobody hears it.
            let _ = other.send_to(&answer(&bytes[..count], 66), from);
            socket.send_to(&answer(&bytes[..count], 7), from).unwrap();
        });
        assert!(ends_with(over_udp(at, "a.example", Kind::A), 7));
        server.join().unwrap();
    }

    #[test]
    fn an_answer_over_tcp_is_held_to_its_number_too() {
        for (change, heard) in [(0, true), (1, false)] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let at = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut question).unwrap();
                let mut said = answer(&question, 7);
                said[0] ^= change;
                let length = u16::try_from(said.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length[..], &said].concat()).unwrap();
            });
            assert_eq!(ends_with(over_tcp(at, "a.example", Kind::A), 7), heard);
            server.join().unwrap();
        }
    }

    #[test]
    fn a_server_that_is_silent_is_followed_by_the_next() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let servers = [silent.local_addr().unwrap(), server(0)];
        assert!(ends_with(Some(ask_each(&servers, "a.example", Kind::A)), 7));
    }

    #[test]
    fn every_bit_of_a_questions_number_is_drawn() {
        let drawn: Vec<u16> = (0..64).filter_map(|_| random_id()).collect();
        assert_eq!(drawn.len(), 64);
        // Each fails once in 2^60 times.
        assert_eq!(drawn.iter().fold(0, |bits, id| bits | id), u16::MAX);
        assert_eq!(drawn.iter().fold(u16::MAX, |bits, id| bits & id), 0);
    }
}
