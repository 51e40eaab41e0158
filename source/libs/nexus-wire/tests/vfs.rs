//! Every message comes back as it went; no packet makes a reader panic.

use nexus_abi::{Area, Operation, Reason};
use nexus_quota::Budget;
use nexus_wire::vfs::{AreaUsage, Budgets, Event, FromVfsd, Refusal, ToVfsd, WorkUsage};
use nexus_wire::{Bounded, DecodeError, PACKET_BYTES_MAX};
use proptest::prelude::*;

fn bounded<const N: usize>() -> impl Strategy<Value = Bounded<N>> {
    proptest::collection::vec(any::<u8>(), 0..=N).prop_map(|bytes| Bounded::cut(&bytes))
}

fn budget() -> impl Strategy<Value = Budget> {
    any::<(Option<u64>, u64, u64)>().prop_map(|(soft_bytes, hard_bytes, hard_inodes)| Budget {
        soft_bytes,
        hard_bytes,
        hard_inodes,
    })
}

fn to_vfsd() -> impl Strategy<Value = ToVfsd> {
    prop_oneof![
        (bounded(), budget(), budget(), budget(), bounded()).prop_map(|(subject, tmp, state, work, policy)| {
            ToVfsd::Hello {
                subject,
                budgets: Budgets { tmp, state, work },
                policy,
            }
        }),
        Just(ToVfsd::Work),
        (any::<u32>(), bounded()).prop_map(|(parent, name)| ToVfsd::Hold { parent, name }),
        (any::<u32>(), bounded(), any::<bool>()).prop_map(|(parent, name, is_file)| ToVfsd::Place {
            parent,
            name,
            is_file
        }),
        any::<u32>().prop_map(|init_pid| ToVfsd::Attach { init_pid }),
        Just(ToVfsd::QueryUsage),
    ]
}

fn area() -> impl Strategy<Value = Area> {
    proptest::sample::select(Area::ALL.to_vec())
}

fn operation() -> impl Strategy<Value = Operation> {
    proptest::sample::select(Operation::ALL.to_vec())
}

fn reason() -> impl Strategy<Value = Reason> {
    proptest::sample::select(Reason::ALL.to_vec())
}

fn usage() -> impl Strategy<Value = AreaUsage> {
    (any::<u64>(), any::<u64>(), budget()).prop_map(|(used_bytes, used_inodes, budget)| AreaUsage {
        used_bytes,
        used_inodes,
        budget,
    })
}

fn work() -> impl Strategy<Value = WorkUsage> {
    (any::<[u64; 4]>(), budget()).prop_map(
        |([used_bytes, used_inodes, start_bytes, start_inodes], budget)| WorkUsage {
            used_bytes,
            used_inodes,
            start_bytes,
            start_inodes,
            budget,
        },
    )
}

fn from_vfsd() -> impl Strategy<Value = FromVfsd> {
    let refusals = vec![
        Refusal::Subject,
        Refusal::TooManySessions,
        Refusal::Mount,
        Refusal::Start,
        Refusal::Work,
    ];
    prop_oneof![
        any::<(u32, bool)>().prop_map(|(vfsd_pid, fresh)| FromVfsd::Welcome { vfsd_pid, fresh }),
        any::<(u32, u32)>().prop_map(|(part, errno)| FromVfsd::NoPlace { part, errno }),
        (proptest::sample::select(refusals), bounded(), any::<u32>())
            .prop_map(|(refusal, stage, errno)| FromVfsd::Refused { refusal, stage, errno }),
        (
            area(),
            operation(),
            reason(),
            bounded(),
            any::<u64>(),
            any::<u32>(),
            bounded()
        )
            .prop_map(
                |(area, operation, reason, name, asked, pid, policy)| FromVfsd::Event(Event {
                    area,
                    operation,
                    reason,
                    name,
                    asked,
                    pid,
                    policy
                })
            ),
        (area(), operation(), reason(), any::<u64>()).prop_map(|(area, operation, reason, count)| FromVfsd::Lost {
            area,
            operation,
            reason,
            count
        }),
        (usage(), usage(), proptest::option::of(work())).prop_map(|(tmp, state, work)| FromVfsd::Usage {
            tmp,
            state,
            work
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_to_vfsd_comes_back_as_it_went(message in to_vfsd()) {
        let packet = message.encode();
        prop_assert!(packet.len() <= PACKET_BYTES_MAX);
        prop_assert_eq!(ToVfsd::decode(&packet), Ok(message));
    }

    #[test]
    fn every_message_from_vfsd_comes_back_as_it_went(message in from_vfsd()) {
        let packet = message.encode();
        prop_assert!(packet.len() <= PACKET_BYTES_MAX);
        prop_assert_eq!(FromVfsd::decode(&packet), Ok(message));
    }

    #[test]
    fn a_cut_or_lengthened_message_is_refused(message in from_vfsd(), cut in any::<prop::sample::Index>()) {
        let mut packet = message.encode();
        let shorter = cut.index(packet.len());
        prop_assert!(FromVfsd::decode(&packet[..shorter]).is_err());
        packet.push(0);
        prop_assert!(FromVfsd::decode(&packet).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_a_message_that_encodes_to_them_or_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..1100)
    ) {
        if let Ok(message) = ToVfsd::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes.clone());
        }
        if let Ok(message) = FromVfsd::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }

    #[test]
    fn a_flipped_byte_never_panics(message in from_vfsd(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut packet = message.encode();
        let at = at.index(packet.len());
        packet[at] = with;
        let _ = FromVfsd::decode(&packet);
        let _ = ToVfsd::decode(&packet);
    }
}

#[test]
fn another_version_is_refused_by_name() {
    let mut packet = ToVfsd::QueryUsage.encode();
    packet[0] = 9;
    assert_eq!(ToVfsd::decode(&packet), Err(DecodeError::Version(9)));
}

#[test]
fn a_packet_past_the_longest_is_refused_before_it_is_read() {
    assert_eq!(ToVfsd::decode(&[1; PACKET_BYTES_MAX + 1]), Err(DecodeError::TooLong));
}
