//! DNS messages, as far as addresses need them. RFC 1035, RFC 6891.

use simple_dns::rdata::{A, AAAA, CNAME, OPT, RData};
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest message over UDP that is asked for and answered: what fits a packet on every path (DNS Flag Day 2020).
pub(super) const UDP_BYTES_MAX: usize = 1232;

/// What a client takes over UDP that does not say (RFC 1035, 4.2.1).
const UDP_BYTES_PLAIN: usize = 512;

/// The longest name as text (RFC 1035, 2.3.4, without the root's dot).
const NAME_BYTES_MAX: usize = 253;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    A,
    Aaaa,
    /// Anything else: there is never any.
    Other,
}

/// A question as a program asked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    id: u16,
    /// In lower case, without the dot at the end.
    pub(super) name: String,
    pub(super) kind: Kind,
    asked: QTYPE,
    recursion: bool,
    /// How much the client takes over UDP; `None` without EDNS.
    udp_bytes: Option<u16>,
}

/// What to say to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// These, which may be none.
    Records(Vec<Record>),
    /// No such name.
    NoName,
    /// Nobody could be asked.
    Failed,
}

/// A record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) ttl: u32,
    pub(super) data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    Address(IpAddr),
    Alias(String),
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Records(Vec<Record>),
    NoName,
    /// It does not fit: ask over TCP.
    Truncated,
    /// This server cannot tell.
    Failed,
}

/// Whether the counts in a header can be true. The parser makes room for as many as are told.
fn counts_fit(bytes: &[u8]) -> bool {
    const HEADER_BYTES: usize = 12;
    const QUESTION_BYTES_MIN: usize = 5;
    const RECORD_BYTES_MIN: usize = 11;
    let count = |at: usize| -> usize {
        bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk::<2>())
            .map_or(usize::MAX, |two| usize::from(u16::from_be_bytes(*two)))
    };
    let records = [6, 8, 10]
        .into_iter()
        .fold(0_usize, |sum, at| sum.saturating_add(count(at)));
    let least = records
        .saturating_mul(RECORD_BYTES_MIN)
        .saturating_add(count(4).saturating_mul(QUESTION_BYTES_MIN));
    least <= bytes.len().saturating_sub(HEADER_BYTES)
}

/// A name as text, if it is one that a host can have: letters, digits, hyphens and underscores.
fn text_of(name: &Name<'_>) -> Option<String> {
    let mut text = String::new();
    for label in name.as_bytes() {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_';
        if label.is_empty() || !label.iter().all(plain) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(&String::from_utf8_lossy(label).to_ascii_lowercase());
    }
    (!text.is_empty() && text.len() <= NAME_BYTES_MAX).then_some(text)
}

/// Reads a program's message. `Err` is the answer to one that cannot be answered otherwise, if it can be answered at all.
pub(super) fn read_query(bytes: &[u8]) -> Result<Query, Option<Vec<u8>>> {
    let refused = |code: RCODE| {
        let (id, _) = bytes.split_first_chunk::<2>()?;
        let is_query = bytes.get(2).is_some_and(|flags| flags & 0x80 == 0);
        let mut reply = Packet::new_reply(u16::from_be_bytes(*id));
        *reply.rcode_mut() = code;
        is_query.then(|| reply.build_bytes_vec().ok())?
    };
    if !counts_fit(bytes) {
        return Err(refused(RCODE::FormatError));
    }
    let packet = Packet::parse(bytes).map_err(|_| refused(RCODE::FormatError))?;
    if packet.has_flags(PacketFlag::RESPONSE) {
        // Nobody answers an answer.
        return Err(None);
    }
    if packet.opcode() != OPCODE::StandardQuery {
        return Err(refused(RCODE::NotImplemented));
    }
    let [question] = packet.questions.as_slice() else {
        return Err(refused(RCODE::FormatError));
    };
    if question.qclass != QCLASS::CLASS(CLASS::IN) {
        return Err(refused(RCODE::Refused));
    }
    let name = text_of(&question.qname).ok_or_else(|| refused(RCODE::NameError))?;
    Ok(Query {
        id: packet.id(),
        name,
        kind: match question.qtype {
            QTYPE::TYPE(TYPE::A) => Kind::A,
            QTYPE::TYPE(TYPE::AAAA) => Kind::Aaaa,
            _ => Kind::Other,
        },
        asked: question.qtype,
        recursion: packet.has_flags(PacketFlag::RECURSION_DESIRED),
        udp_bytes: packet.opt().map(|opt| opt.udp_packet_size),
    })
}

/// The answer to a question; over UDP cut to nothing if it is longer than the client takes.
pub(super) fn write_reply(query: &Query, reply: &Reply, over_udp: bool) -> Option<Vec<u8>> {
    let whole = build(query, reply, false)?;
    let fits = query.udp_bytes.map_or(UDP_BYTES_PLAIN, |bytes| {
        usize::from(bytes).clamp(UDP_BYTES_PLAIN, UDP_BYTES_MAX)
    });
    if over_udp && whole.len() > fits {
        return build(query, &Reply::Records(Vec::new()), true);
    }
    Some(whole)
}

fn build(query: &Query, reply: &Reply, truncated: bool) -> Option<Vec<u8>> {
    let mut packet = Packet::new_reply(query.id);
    packet.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if query.recursion {
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    if truncated {
        packet.set_flags(PacketFlag::TRUNCATION);
    }
    let name = Name::new(&query.name).ok()?;
    let class = QCLASS::CLASS(CLASS::IN);
    packet.questions.push(Question::new(name, query.asked, class, false));
    if query.udp_bytes.is_some() {
        *packet.opt_mut() = Some(opt());
    }
    match reply {
        Reply::NoName => *packet.rcode_mut() = RCODE::NameError,
        Reply::Failed => *packet.rcode_mut() = RCODE::ServerFailure,
        Reply::Records(records) => {
            for record in records {
                let data = match &record.data {
                    Data::Address(IpAddr::V4(v4)) => RData::A(A { address: v4.to_bits() }),
                    Data::Address(IpAddr::V6(v6)) => RData::AAAA(AAAA { address: v6.to_bits() }),
                    Data::Alias(name) => RData::CNAME(CNAME(Name::new(name).ok()?)),
                };
                let name = Name::new(&record.name).ok()?;
                packet
                    .answers
                    .push(ResourceRecord::new(name, CLASS::IN, record.ttl, data));
            }
        }
    }
    packet.build_bytes_vec_compressed().ok()
}

fn opt() -> OPT<'static> {
    OPT {
        opt_codes: Vec::new(),
        udp_packet_size: UDP_BYTES_MAX as u16,
        version: 0,
    }
}

fn type_of(kind: Kind) -> Option<TYPE> {
    match kind {
        Kind::A => Some(TYPE::A),
        Kind::Aaaa => Some(TYPE::AAAA),
        Kind::Other => None,
    }
}

/// A question for the host's server.
pub(super) fn write_query(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let class = QCLASS::CLASS(CLASS::IN);
    let question = Question::new(Name::new(name).ok()?, QTYPE::TYPE(type_of(kind)?), class, false);
    packet.questions.push(question);
    *packet.opt_mut() = Some(opt());
    packet.build_bytes_vec().ok()
}

/// Reads a server's message; `None` for one that does not answer this question.
pub(super) fn read_answer(bytes: &[u8], id: u16, name: &str, kind: Kind) -> Option<Answer> {
    if !counts_fit(bytes) {
        return None;
    }
    let packet = Packet::parse(bytes).ok()?;
    let [question] = packet.questions.as_slice() else {
        return None;
    };
    let ours = packet.id() == id
        && packet.has_flags(PacketFlag::RESPONSE)
        && packet.opcode() == OPCODE::StandardQuery
        && question.qtype == QTYPE::TYPE(type_of(kind)?)
        && question.qclass == QCLASS::CLASS(CLASS::IN)
        && text_of(&question.qname)? == name;
    if !ours {
        return None;
    }
    Some(match packet.rcode() {
        _ if packet.has_flags(PacketFlag::TRUNCATION) => Answer::Truncated,
        RCODE::NoError => Answer::Records(packet.answers.iter().filter_map(record_of).collect()),
        RCODE::NameError => Answer::NoName,
        _ => Answer::Failed,
    })
}

fn record_of(record: &ResourceRecord<'_>) -> Option<Record> {
    let data = match &record.rdata {
        _ if record.class != CLASS::IN => return None,
        RData::A(a) => Data::Address(Ipv4Addr::from_bits(a.address).into()),
        RData::AAAA(aaaa) => Data::Address(Ipv6Addr::from_bits(aaaa.address).into()),
        RData::CNAME(alias) => Data::Alias(text_of(&alias.0)?),
        _ => return None,
    };
    Some(Record {
        name: text_of(&record.name)?,
        ttl: record.ttl,
        data,
    })
}

/// For tests with hostile bytes: reads them as a program's question and as a server's answer, and says whether they were one
/// of the two.
///
/// # Errors
/// The claim about what comes out that does not hold.
#[doc(hidden)]
pub fn read_any_message(bytes: &[u8]) -> Result<bool, &'static str> {
    let hold = |claim: &'static str, holds: bool| if holds { Ok(()) } else { Err(claim) };
    let plain = |name: &str| {
        let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        let labels = name
            .split('.')
            .all(|label| !label.is_empty() && label.bytes().all(fine));
        hold("a name is such as hosts have", labels && name.len() <= NAME_BYTES_MAX)
    };
    let mut understood = false;
    match read_query(bytes) {
        Ok(query) => {
            understood = true;
            plain(&query.name)?;
            for reply in [Reply::NoName, Reply::Failed, Reply::Records(Vec::new())] {
                let written = write_reply(&query, &reply, true).map_or(usize::MAX, |written| written.len());
                hold("every question can be answered in one packet", written <= UDP_BYTES_MAX)?;
            }
        }
        Err(said) => hold("a refusal is a header", said.is_none_or(|said| said.len() == 12))?,
    }
    // Read as the answer to the very question that it holds.
    let packet = counts_fit(bytes).then(|| Packet::parse(bytes).ok()).flatten();
    let question = packet.as_ref().and_then(|packet| packet.questions.first());
    let (Some(id), Some(name)) = (
        packet.as_ref().map(Packet::id),
        question.and_then(|question| text_of(&question.qname)),
    ) else {
        return Ok(understood);
    };
    for kind in [Kind::A, Kind::Aaaa] {
        let others = [(id ^ 1, name.clone()), (id, format!("x{name}"))];
        let silent = others
            .iter()
            .all(|(id, name)| read_answer(bytes, *id, name, kind).is_none());
        hold("an answer to another question is none", silent)?;
        let Some(answer) = read_answer(bytes, id, &name, kind) else {
            continue;
        };
        understood = true;
        let records = match answer {
            Answer::Records(records) => records,
            Answer::NoName | Answer::Truncated | Answer::Failed => continue,
        };
        hold(
            "no more records than there is room for",
            records.len() <= bytes.len() / 11,
        )?;
        for record in records {
            plain(&record.name)?;
            if let Data::Alias(target) = record.data {
                plain(&target)?;
            }
        }
    }
    Ok(understood)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query(name: &str, kind: Kind) -> Query {
        read_query(&write_query(7, name, kind).unwrap()).unwrap()
    }

    fn address(name: &str, ip: &str) -> Record {
        Record {
            name: name.to_owned(),
            ttl: 60,
            data: Data::Address(ip.parse().unwrap()),
        }
    }

    #[test]
    fn a_question_is_read_as_it_was_asked_and_its_answer_too() {
        let asked = query("Git.Example.org", Kind::Aaaa);
        assert_eq!((asked.name.as_str(), asked.kind), ("git.example.org", Kind::Aaaa));
        let alias = Record {
            data: Data::Alias("a.example.net".to_owned()),
            ..address("git.example.org", "::1")
        };
        let records = vec![alias, address("a.example.net", "2001:db8::1")];
        let bytes = write_reply(&asked, &Reply::Records(records.clone()), true).unwrap();
        let read = |id, name, kind| read_answer(&bytes, id, name, kind);
        assert_eq!(read(7, "git.example.org", Kind::Aaaa), Some(Answer::Records(records)));
        assert_eq!(read(8, "git.example.org", Kind::Aaaa), None);
        assert_eq!(read(7, "git.example.net", Kind::Aaaa), None);
        assert_eq!(read(7, "git.example.org", Kind::A), None);
        // A question is no answer.
        let question = write_query(7, "git.example.org", Kind::A).unwrap();
        assert_eq!(read_answer(&question, 7, "git.example.org", Kind::A), None);
    }

    #[test]
    fn an_answer_that_does_not_fit_is_cut_over_udp_and_whole_over_tcp() {
        let asked = query("a.example", Kind::A);
        let many: Vec<Record> = (0..=255)
            .map(|last| address("a.example", &format!("203.0.113.{last}")))
            .collect();
        let cut = write_reply(&asked, &Reply::Records(many.clone()), true).unwrap();
        assert!(cut.len() <= UDP_BYTES_MAX);
        assert_eq!(read_answer(&cut, 7, "a.example", Kind::A), Some(Answer::Truncated));
        let whole = write_reply(&asked, &Reply::Records(many.clone()), false).unwrap();
        assert_eq!(
            read_answer(&whole, 7, "a.example", Kind::A),
            Some(Answer::Records(many))
        );
    }

    #[test]
    fn an_answer_or_a_record_of_another_kind_of_message_or_class_is_none() {
        let asked = query("a.example", Kind::A);
        let reply = Reply::Records(vec![address("a.example", "203.0.113.7")]);
        let bytes = write_reply(&asked, &reply, true).unwrap();
        // The header and a name of 11 bytes, type and class; a pointer to the name, type and class.
        let (opcode, question_class, record_class) = (2, 26, 32);
        let read = |at: usize, to: u8| {
            let mut changed = bytes.clone();
            changed[at] = to;
            read_answer(&changed, 7, "a.example", Kind::A)
        };
        let same =
            |at: usize| read(at, bytes[at]).map(|answer| matches!(answer, Answer::Records(all) if all.len() == 1));
        assert_eq!([opcode, question_class, record_class].map(same), [Some(true); 3]);
        // STATUS (RFC 1035), and the class CH.
        assert_eq!(read(opcode, bytes[opcode] | 0x10), None);
        assert_eq!(read(question_class, 3), None);
        assert_eq!(read(record_class, 3), Some(Answer::Records(vec![])));
        let mut other = write_query(7, "a.example", Kind::A).unwrap();
        other[question_class] = 3;
        let said = read_query(&other).unwrap_err().unwrap();
        assert_eq!(said[3] & 15, 5);
    }

    #[test]
    fn a_client_gets_as_much_over_udp_as_it_says_and_never_more_than_fits_a_packet() {
        let records = |count: u8| -> Reply {
            let each = (0..count).map(|last| address("a.example", &format!("203.0.113.{last}")));
            Reply::Records(each.collect())
        };
        for (says, fits, does_not) in [
            (None, 25, 40),
            (Some(100), 25, 40),
            (Some(1000), 40, 80),
            (Some(65535), 70, 100),
        ] {
            let asked = Query {
                udp_bytes: says,
                ..query("a.example", Kind::A)
            };
            let is_cut = |count| {
                let said = write_reply(&asked, &records(count), true).unwrap();
                read_answer(&said, 7, "a.example", Kind::A) == Some(Answer::Truncated)
            };
            assert_eq!((is_cut(fits), is_cut(does_not)), (false, true), "{says:?}");
        }
    }

    #[test]
    fn counts_that_cannot_be_true_are_seen_before_room_is_made() {
        let query = write_query(7, "a.example", Kind::A).unwrap();
        assert!(counts_fit(&query) && !counts_fit(&query[..11]));
        for at in [4, 6, 8, 10] {
            let mut lies = query.clone();
            lies[at] = 0xff;
            assert!(!counts_fit(&lies), "{at}");
        }
    }

    #[test]
    fn what_is_no_question_is_refused_or_ignored() {
        assert_eq!(read_query(&[]), Err(None));
        let mut response = write_query(7, "a.example", Kind::A).unwrap();
        response[2] |= 0x80;
        assert_eq!(read_query(&response), Err(None));
        let mut lies = write_query(7, "a.example", Kind::A).unwrap();
        lies[6..8].copy_from_slice(&[0xff, 0xff]);
        let said = read_query(&lies).unwrap_err().unwrap();
        assert_eq!((said[..2].to_vec(), said[3] & 15), (vec![0, 7], 1));
        assert!(text_of(&Name::new(r"a\.b.example").unwrap()).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            mut bytes in prop::collection::vec(any::<u8>(), 0..600), sane in any::<bool>()
        ) {
            if let (true, Some(counts)) = (sane, bytes.get_mut(4..12)) {
                counts.copy_from_slice(&[0, 1, 0, 2, 0, 0, 0, 1]);
            }
            let _ = read_query(&bytes);
            let _ = read_answer(&bytes, 7, "a.example", Kind::A);
        }

        #[test]
        fn a_changed_answer_never_panics(at in 0_usize..80, to in any::<u8>()) {
            let asked = query("git.example.org", Kind::A);
            let reply = Reply::Records(vec![address("git.example.org", "203.0.113.7")]);
            let mut bytes = write_reply(&asked, &reply, true).unwrap();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            let _ = read_answer(&bytes, 7, "git.example.org", Kind::A);
        }
    }
}
