use super::message::write_query;
use super::*;
use nexus_policy::{MemoryTree, Policy};

/// Reasons and objects of what was denied.
type Denied = Vec<(Reason, String)>;

/// A resolver for `*.example.net`, and what it denied.
fn resolver() -> (Arc<Resolver>, Arc<Mutex<Denied>>) {
    let files = [
        (
            "nexus.policy.toml",
            "version = 1\ninclude = [\"egress.toml\"]\n[subject.s]\n",
        ),
        (
            "egress.toml",
            "[subject.s]\nallow = [\"*.example.net:80\"]\ndeny = [\"closed.example.net:80\"]\n",
        ),
    ];
    let tree = MemoryTree::new(files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())));
    let gate = Policy::load(&tree)
        .unwrap()
        .subject("s")
        .unwrap()
        .egress_gate()
        .unwrap();
    let denied = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&denied);
    let late = Arc::new(move |denial: Denial| into.lock().unwrap().push((denial.reason, denial.object)));
    (Arc::new(Resolver::new(gate, Pins::default(), late)), denied)
}

fn query(name: &str, kind: Kind) -> Query {
    read_query(&write_query(7, name, kind).unwrap()).unwrap()
}

fn record(name: &str, ttl: u32, data: Data) -> Record {
    Record {
        name: name.to_owned(),
        ttl,
        data,
    }
}

/// What an answer of these addresses opens and tells.
fn opened(answers: &[&str]) -> (Vec<String>, Vec<IpAddr>, Denied) {
    let (resolver, denied) = resolver();
    let mut told = Vec::new();
    for kind in [Kind::A, Kind::Aaaa] {
        let addresses = answers.iter().map(|ip| ip.parse().unwrap());
        let records = addresses
            .map(|ip| record("a.example.net", 60, Data::Address(ip)))
            .collect();
        let grants = resolver.gate.judge_name("a.example.net").unwrap();
        match resolver.open(&query("a.example.net", kind), grants, records) {
            Reply::Records(records) => told.extend(records),
            other => panic!("{other:?}"),
        }
    }
    let told = told.into_iter().map(|record| match record.data {
        Data::Address(ip) => ip.to_string(),
        Data::Alias(name) => name,
    });
    let names = crate::OpenNames::of(resolver.pins.clone()).list(Instant::now());
    let denied = denied.lock().unwrap().clone();
    (
        told.collect(),
        names.into_iter().map(|name| name.address).collect(),
        denied,
    )
}

#[test]
fn an_address_of_anybodys_is_opened_and_no_special_one_in_any_form() {
    let (told, open, denied) = opened(&["203.0.113.7", "2001:db8::7"]);
    assert_eq!(told, ["203.0.113.7", "2001:db8::7"]);
    assert_eq!((open.len(), denied), (2, vec![]));
    let block = |special: &nexus_net_egress::SpecialBlock| special.address.to_string();
    let mut special: Vec<String> = nexus_net_egress::SPECIAL_BLOCKS.iter().map(block).collect();
    let more = [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "169.254.169.254",
        "224.0.0.251",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "fe80::1",
        "ff02::fb",
        "2002:7f00:1::1",
        "::7f00:1",
    ];
    special.extend(more.map(str::to_owned));
    let special: Vec<&str> = special
        .iter()
        .map(String::as_str)
        .filter(|ip| *ip != "10.0.0.1")
        .collect();
    let (told, open, denied) = opened(&special);
    assert_eq!((told, open), (vec![], vec![]));
    assert_eq!(denied.len(), special.len());
    for (ip, (reason, object)) in special.iter().zip(&denied) {
        assert_eq!(*reason, Reason::EgressSpecialAddress, "{ip}");
        assert!(object.starts_with("a.example.net "), "{object}");
    }
}

#[test]
fn an_address_of_the_hosts_own_is_opened_by_no_name() {
    let own = nexus_sys::interface::addresses().unwrap();
    let own: Vec<String> = own.into_iter().map(|ip| ip.to_string()).collect();
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    assert!(!own.is_empty());
    let (told, open, denied) = opened(&own);
    assert_eq!((told, open), (vec![], vec![]));
    assert_eq!(denied.len(), own.len());
}

#[test]
fn an_answer_opens_the_end_of_its_own_chain_and_nothing_else_that_it_holds() {
    let (resolver, denied) = resolver();
    let ask = |records: Vec<Record>| {
        let grants = resolver.gate.judge_name("a.example.net").unwrap();
        resolver.open(&query("a.example.net", Kind::A), grants, records)
    };
    let address = |name: &str, last: u8| record(name, 60, Data::Address([203, 0, 113, last].into()));
    let alias = |name: &str, to: &str| record(name, 5, Data::Alias(to.to_owned()));
    let Reply::Records(told) = ask(vec![
        address("b.example.com", 8),
        alias("a.example.net", "b.example.com"),
        address("a.example.net", 66),
        address("c.example.com", 67),
    ]) else {
        panic!("no records")
    };
    assert_eq!(told.len(), 2);
    // An address lives no longer than the alias that led to it.
    assert_eq!((told[0].ttl, told[1].ttl), (5, 5));
    let names = crate::OpenNames::of(resolver.pins.clone());
    let open: Vec<IpAddr> = names
        .list(Instant::now())
        .into_iter()
        .map(|name| name.address)
        .collect();
    assert_eq!(open, [IpAddr::from([203, 0, 113, 8])]);
    // To a name that a rule denies, and round in a circle.
    assert_eq!(
        ask(vec![
            alias("a.example.net", "closed.example.net"),
            address("closed.example.net", 9)
        ]),
        Reply::NoName
    );
    assert_eq!(denied.lock().unwrap().len(), 1);
    let circle = vec![
        alias("a.example.net", "b.example.com"),
        alias("b.example.com", "a.example.net"),
    ];
    assert!(matches!(ask(circle), Reply::Records(told) if told.len() == ALIASES_MAX));
    assert_eq!(names.list(Instant::now()).len(), 1);
}

#[test]
fn every_name_below_localhost_is_the_sessions_own_and_nobody_is_asked() {
    let (resolver, denied) = resolver();
    for (name, own) in [
        ("localhost", true),
        ("a.localhost", true),
        ("notlocalhost", false),
        ("localhost.example", false),
    ] {
        let reply = resolver.resolve(&query(name, Kind::A));
        let told = matches!(&reply, Reply::Records(told) if told.len() == 1 && told[0].data == Data::Address(Ipv4Addr::LOCALHOST.into()));
        assert_eq!((told, reply == Reply::NoName), (own, !own), "{name}");
    }
    assert_eq!(denied.lock().unwrap().len(), 2);
}

#[test]
fn lives_of_answers_are_bounded_at_both_ends() {
    for (ttl, least, most) in [(0, 60, 60), (10, 60, 60), (300, 329, 330), (u32::MAX, 3629, 3630)] {
        let (resolver, _) = resolver();
        let grants = resolver.gate.judge_name("a.example.net").unwrap();
        let records = vec![record("a.example.net", ttl, Data::Address([203, 0, 113, 7].into()))];
        let Reply::Records(told) = resolver.open(&query("a.example.net", Kind::A), grants, records) else {
            panic!("no records")
        };
        assert_eq!(told[0].ttl, ttl.min(TTL_MAX));
        // Some of it may have passed on a machine that was busy.
        let left = crate::OpenNames::of(resolver.pins.clone()).list(Instant::now())[0].left_s;
        assert!(left <= most && left + 30 >= least, "{ttl}: {left}");
    }
}

/// So many of something at once, until they are let go.
fn busy(resolver: &Arc<Resolver>, counter: fn(&Resolver) -> &AtomicUsize, max: usize) -> Vec<Counted> {
    let counted: Vec<Counted> = (0..max).filter_map(|_| Counted::of(resolver, counter, max)).collect();
    assert_eq!(counted.len(), max);
    counted
}

#[test]
fn past_so_many_lookups_a_question_is_dropped_and_the_next_is_answered() {
    let (resolver, _) = resolver();
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (question, from) = (
        write_query(7, "localhost", Kind::A).unwrap(),
        client.local_addr().unwrap(),
    );
    let mut busy = busy(&resolver, |resolver| &resolver.lookups, LOOKUPS_MAX);
    assert!(!look_up(&resolver, &socket, &question, from));
    // The same over TCP: whoever asks is hung up on.
    let ask = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (resolver, served) = (Arc::clone(&resolver), listener.accept().unwrap().0);
        let server = thread::spawn(move || serve(&resolver, served));
        let length = u16::try_from(question.len()).unwrap();
        stream
            .write_all(&[&length.to_be_bytes()[..], &question].concat())
            .unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        server.join().unwrap();
        said.len()
    };
    assert_eq!(ask(), 0);
    busy.pop();
    assert!(ask() > 0);
    assert!(look_up(&resolver, &socket, &question, from));
    let mut bytes = [0; 512];
    assert!(client.recv(&mut bytes).unwrap() > 12);
}

#[test]
fn past_so_many_connections_one_more_is_hung_up_on_and_the_next_after_an_end_is_served() {
    let (resolver, _) = resolver();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let mut busy = busy(&resolver, |resolver| &resolver.connections, CONNECTIONS_MAX);
    let served = Arc::clone(&resolver);
    thread::spawn(move || streams_of(&served, &listener));
    let question = write_query(7, "localhost", Kind::A).unwrap();
    let length = u16::try_from(question.len()).unwrap();
    let message = [&length.to_be_bytes()[..], &question].concat();
    let ask = || {
        let mut stream = TcpStream::connect(at).unwrap();
        let mut two = [0; 2];
        // Either may be what tells that the other side hung up.
        stream
            .write_all(&message)
            .and_then(|()| stream.read_exact(&mut two))
            .is_ok()
    };
    assert!(!ask());
    busy.pop();
    assert!(ask());
}
