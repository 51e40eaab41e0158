//! Every profile of at most three rules over a tiny language, with every call over tiny values.

use core::net::SocketAddr;
use std::vec;
use std::vec::Vec;

use nexus_abi::syscall::nr;
use nexus_abi::{Protocol, Verdict};

use super::interpreter::run;
use super::{Fixed, allow, arg, deny, oracle};
use crate::{ArgTest, Call, Condition, Destination, Fact, Guard, Profile, Request, SECCOMP_RET_ALLOW, Width, compile};

fn condition_lists() -> Vec<Vec<Condition>> {
    let bit = arg(0, Width::W32, ArgTest::AnyBit(1));
    vec![
        vec![],
        vec![arg(0, Width::W32, ArgTest::Equal(0))],
        vec![arg(0, Width::W64, ArgTest::Equal(0))],
        vec![bit.clone()],
        vec![Condition::Egress],
        vec![bit, Condition::Egress],
    ]
}

#[test]
fn every_small_profile_is_judged_as_the_oracle_says_and_filtered_as_the_guard_says() {
    let destination = |port| {
        Fact::Is(Destination {
            protocol: Protocol::Udp,
            address: SocketAddr::from(([192, 0, 2, 1], port)),
        })
    };
    let destinations = [Fact::Unknown, Fact::Nothing, destination(1), destination(2)];
    let lists = condition_lists();
    let kinds = lists.len() * 2;
    let make = |kind: usize, at: u32| {
        let conditions = lists[kind / 2].clone();
        if kind.is_multiple_of(2) {
            allow(nr::socket, conditions, at)
        } else {
            deny(nr::socket, conditions, at)
        }
    };
    let mut checked = 0_u32;
    for rules in 0..=3_u32 {
        for code in 0..kinds.pow(rules) {
            let rules: Vec<_> = (0..rules).map(|at| make(code / kinds.pow(at) % kinds, at)).collect();
            for probed in [vec![], vec![nr::socket]] {
                let profile = Profile {
                    rules: rules.clone(),
                    probed,
                };
                let guard = Guard::new(&[&profile]).unwrap();
                let program = compile(&[&profile], &[]).unwrap();
                for first in [0, 1, 1 << 32, 1 << 32 | 1] {
                    let call = Call::native(nr::socket, [first, 0, 0, 0, 0, 0]);
                    let mut verdicts: Vec<Verdict> = Vec::new();
                    for destination in destinations {
                        let request = Request {
                            call,
                            destination,
                            growth: Fact::Nothing,
                        };
                        let verdict = guard.judge(&request, &Fixed);
                        assert_eq!(verdict, oracle::judge(&[&profile], &request), "{profile:?} {request:?}");
                        verdicts.push(verdict);
                    }
                    let always = verdicts.iter().all(|verdict| verdict.is_allow());
                    assert_eq!(
                        run(&program, &call).0 == SECCOMP_RET_ALLOW,
                        always,
                        "{profile:?} {call:?}"
                    );
                    checked += 1;
                }
            }
        }
    }
    assert_eq!(checked, 8 * (1 + 12 + 144 + 1728));
}
