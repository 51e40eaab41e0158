//! What a session and the file server of its subject say to each other.
//!
//! A session connects, says [`ToVfsd::Hello`] and gets [`FromVfsd::Welcome`] with the mounts of its areas, or
//! [`FromVfsd::Refused`]. From then on events come as they happen. Closing the socket ends the session.

use nexus_abi::{Area, Operation, Reason};
use nexus_quota::Budget;

use crate::codec::{Bounded, DecodeError, Reader, Writer};

/// A subject's name; policy allows no longer one.
pub type SubjectName = Bounded<64>;
/// A PolicyVersion in hex: SHA-256 is 64 digits.
pub type PolicyHex = Bounded<64>;
/// The last part of a path, as the program chose it: any bytes, at most `NAME_MAX`.
pub type FileName = Bounded<255>;

/// The most names of a work directory that one session holds: what policy protects there and what leads to it, and what
/// nexus hides of its own. More than any policy that a person wrote has.
pub const HELD_NAMES_MAX: usize = 256;

/// The most names on the way to what one session mounts in `tmp`: the parts of the work directory's path, and of what policy
/// shows of a home that lies there.
pub const PLACE_PARTS_MAX: usize = 256;

/// The budgets of a subject's areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// `/tmp`, `/var/tmp` and `/dev/shm` together.
    pub tmp: Budget,
    /// `/state`.
    pub state: Budget,
    /// By how much all metered work directories of the subject together may grow, compared with what was in them when
    /// its file server began to serve them.
    pub work: Budget,
}

/// From a session to its file server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToVfsd {
    /// The first message: who I am for, and the budgets that my policy gives.
    Hello {
        /// The subject; a file server of another one refuses.
        subject: SubjectName,
        /// What shall be in force from now on, for every session of the subject.
        budgets: Budgets,
        /// The policy that says so.
        policy: PolicyHex,
    },
    /// The process that is the first of the session's pid namespace runs: events of its children are this session's. Comes
    /// with its descriptor (pidfd_open(2)) where the session holds a place.
    Attach {
        /// As the file server's pid namespace numbers it.
        init_pid: u32,
    },
    /// Say what is used.
    QueryUsage,
    /// Before Hello: I want a work directory too. Comes with its descriptor, which decides which directory it is.
    Work,
    /// After Work: a name in it means, as long as the file server runs, what it means now, whatever becomes of it on the
    /// host; for something is mounted on it in my namespace, and the kernel would let go of that were the name to lead
    /// elsewhere.
    Hold {
        /// In what it stands: 0 for the work directory itself, else the number of an earlier Hold of this session,
        /// counted from 1.
        parent: u32,
        /// The name.
        name: FileName,
    },
    /// Before Hello: I mount something on this name of `tmp`, or on one below. From Welcome on nobody moves, removes or
    /// replaces it, and if it is not there nothing but what has to be there gets the name, as long as my first process runs.
    Place {
        /// In what it stands: 0 for `tmp` itself, else the number of an earlier Place of this session, counted from 1.
        parent: u32,
        /// The name.
        name: FileName,
        /// A regular file has to be there, else a directory.
        is_file: bool,
    },
}

/// What the metered work directories have grown by, and by how much they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkUsage {
    /// Bytes, as charged: everything that is in them.
    pub used_bytes: u64,
    /// Inodes.
    pub used_inodes: u64,
    /// Bytes that count as there before: what was in them at the start, and what others were seen to add since.
    pub start_bytes: u64,
    /// Inodes that were there at the start.
    pub start_inodes: u64,
    /// By how much they may grow.
    pub budget: Budget,
}

/// What is used of one area, and its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaUsage {
    /// Bytes, as charged.
    pub used_bytes: u64,
    /// Inodes.
    pub used_inodes: u64,
    /// The limits in force.
    pub budget: Budget,
}

/// A denial, or a warning where the reason is `quota.soft_bytes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where.
    pub area: Area,
    /// `write` or `create`.
    pub operation: Operation,
    /// Why.
    pub reason: Reason,
    /// The file's last known name; empty for the area itself.
    pub name: FileName,
    /// How many bytes (or, for inodes, how many inodes) were asked for.
    pub asked: u64,
    /// The thread that asked, as the host numbers it; 0 where the kernel does not say.
    pub pid: u32,
    /// The policy whose budget judged.
    pub policy: PolicyHex,
}

/// Why a session was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The file server is of another subject.
    Subject,
    /// The message was no Hello.
    Protocol,
    /// There are as many sessions as can be.
    TooManySessions,
    /// A budget makes no sense.
    Budget,
    /// The mounts could not be made; the errno says why.
    Mount,
    /// The file server could not start; the stage and errno say why.
    Start,
    /// The work directory cannot be metered; the stage and errno say why.
    Work,
}

/// From a file server to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromVfsd {
    /// The answer to Hello; carries the mounts of `tmp`, `state` and `shm`, and of the work directory where one was asked
    /// for, in this order.
    Welcome {
        /// The file server, as its own pid namespace numbers it.
        vfsd_pid: u32,
        /// Whether it started for this session, so that the budgets were set for the first time.
        fresh: bool,
    },
    /// The session was not taken.
    Refused {
        /// Why.
        refusal: Refusal,
        /// What could not be done, for [`Refusal::Start`] and [`Refusal::Work`].
        stage: Bounded<64>,
        /// What the kernel said, 0 where it was not asked.
        errno: u32,
    },
    /// The session was not taken: a name that it mounts on means something else.
    NoPlace {
        /// Which: the number of its Place, counted from 1; 0 for none of them.
        part: u32,
        /// What is there: `ELOOP` a link, `ENOTDIR` or `EISDIR` something of another kind; `EBUSY` if another session
        /// waits for something else. Else what the kernel said.
        errno: u32,
    },
    /// Something was denied or warned about.
    Event(Event),
    /// Events that could not be told in full, because too many came at once. The count is exact.
    Lost {
        /// Where.
        area: Area,
        /// What.
        operation: Operation,
        /// Why.
        reason: Reason,
        /// How many.
        count: u64,
    },
    /// The answer to QueryUsage.
    Usage {
        /// Of `tmp`, which `shm` is charged to.
        tmp: AreaUsage,
        /// Of `state`.
        state: AreaUsage,
        /// Of the work directories, where there is one.
        work: Option<WorkUsage>,
    },
}

impl ToVfsd {
    /// The packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello {
                subject,
                budgets,
                policy,
            } => {
                let writer = Writer::new(1).bytes(subject).bytes(policy);
                [budgets.tmp, budgets.state, budgets.work]
                    .into_iter()
                    .fold(writer, put_budget)
                    .finish()
            }
            Self::Attach { init_pid } => Writer::new(2).u32(*init_pid).finish(),
            Self::QueryUsage => Writer::new(3).finish(),
            Self::Work => Writer::new(4).finish(),
            Self::Hold { parent, name } => Writer::new(5).u32(*parent).bytes(name).finish(),
            Self::Place { parent, name, is_file } => {
                Writer::new(6).u32(*parent).bytes(name).u8(u8::from(*is_file)).finish()
            }
        }
    }

    /// The message of a packet.
    ///
    /// # Errors
    /// Why it is none.
    pub fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        let (mut reader, kind) = Reader::new(packet)?;
        let message = match kind {
            1 => {
                let (subject, policy) = (reader.bytes("subject")?, reader.bytes("policy")?);
                let budgets = Budgets {
                    tmp: get_budget(&mut reader)?,
                    state: get_budget(&mut reader)?,
                    work: get_budget(&mut reader)?,
                };
                Self::Hello {
                    subject,
                    budgets,
                    policy,
                }
            }
            2 => Self::Attach {
                init_pid: reader.u32()?,
            },
            3 => Self::QueryUsage,
            4 => Self::Work,
            5 => Self::Hold {
                parent: reader.u32()?,
                name: reader.bytes("name")?,
            },
            6 => Self::Place {
                parent: reader.u32()?,
                name: reader.bytes("name")?,
                is_file: reader.flag("is_file")?,
            },
            _ => return Err(DecodeError::Kind(kind)),
        };
        reader.finish(message)
    }
}

impl FromVfsd {
    /// The packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Welcome { vfsd_pid, fresh } => Writer::new(1).u32(*vfsd_pid).u8(u8::from(*fresh)).finish(),
            Self::Refused { refusal, stage, errno } => {
                Writer::new(2).u8(refusal.code()).bytes(stage).u32(*errno).finish()
            }
            Self::Event(event) => Writer::new(3)
                .word(event.area.as_str())
                .word(event.operation.as_str())
                .word(event.reason.as_str())
                .bytes(&event.name)
                .u64(event.asked)
                .u32(event.pid)
                .bytes(&event.policy)
                .finish(),
            Self::Lost {
                area,
                operation,
                reason,
                count,
            } => Writer::new(4)
                .word(area.as_str())
                .word(operation.as_str())
                .word(reason.as_str())
                .u64(*count)
                .finish(),
            Self::Usage { tmp, state, work } => {
                let writer = put_usage(put_usage(Writer::new(5), tmp), state).u8(u8::from(work.is_some()));
                match work {
                    Some(work) => put_work(writer, work).finish(),
                    None => writer.finish(),
                }
            }
            Self::NoPlace { part, errno } => Writer::new(6).u32(*part).u32(*errno).finish(),
        }
    }

    /// The message of a packet.
    ///
    /// # Errors
    /// Why it is none.
    pub fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        let (mut reader, kind) = Reader::new(packet)?;
        let message = match kind {
            1 => Self::Welcome {
                vfsd_pid: reader.u32()?,
                fresh: reader.flag("fresh")?,
            },
            2 => Self::Refused {
                refusal: Refusal::from_code(reader.u8()?).ok_or(DecodeError::Field("refusal"))?,
                stage: reader.bytes("stage")?,
                errno: reader.u32()?,
            },
            3 => Self::Event(Event {
                area: get_area(&mut reader)?,
                operation: reader.word("operation", Operation::from_text)?,
                reason: reader.word("reason", Reason::from_text)?,
                name: reader.bytes("name")?,
                asked: reader.u64()?,
                pid: reader.u32()?,
                policy: reader.bytes("policy")?,
            }),
            4 => Self::Lost {
                area: get_area(&mut reader)?,
                operation: reader.word("operation", Operation::from_text)?,
                reason: reader.word("reason", Reason::from_text)?,
                count: reader.u64()?,
            },
            5 => Self::Usage {
                tmp: get_usage(&mut reader)?,
                state: get_usage(&mut reader)?,
                work: if reader.flag("work")? {
                    Some(get_work(&mut reader)?)
                } else {
                    None
                },
            },
            6 => Self::NoPlace {
                part: reader.u32()?,
                errno: reader.u32()?,
            },
            _ => return Err(DecodeError::Kind(kind)),
        };
        reader.finish(message)
    }
}

impl Refusal {
    const ALL: [Self; 7] = [
        Self::Subject,
        Self::Protocol,
        Self::TooManySessions,
        Self::Budget,
        Self::Mount,
        Self::Start,
        Self::Work,
    ];

    fn code(self) -> u8 {
        Self::ALL
            .iter()
            .position(|known| *known == self)
            .and_then(|at| u8::try_from(at).ok())
            .unwrap_or(u8::MAX)
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

fn put_budget(writer: Writer, budget: Budget) -> Writer {
    writer
        .option_u64(budget.soft_bytes)
        .u64(budget.hard_bytes)
        .u64(budget.hard_inodes)
}

fn get_budget(reader: &mut Reader<'_>) -> Result<Budget, DecodeError> {
    Ok(Budget {
        soft_bytes: reader.option_u64("soft_bytes")?,
        hard_bytes: reader.u64()?,
        hard_inodes: reader.u64()?,
    })
}

fn put_usage(writer: Writer, usage: &AreaUsage) -> Writer {
    put_budget(writer.u64(usage.used_bytes).u64(usage.used_inodes), usage.budget)
}

fn get_usage(reader: &mut Reader<'_>) -> Result<AreaUsage, DecodeError> {
    Ok(AreaUsage {
        used_bytes: reader.u64()?,
        used_inodes: reader.u64()?,
        budget: get_budget(reader)?,
    })
}

fn put_work(writer: Writer, work: &WorkUsage) -> Writer {
    let writer = writer
        .u64(work.used_bytes)
        .u64(work.used_inodes)
        .u64(work.start_bytes)
        .u64(work.start_inodes);
    put_budget(writer, work.budget)
}

fn get_work(reader: &mut Reader<'_>) -> Result<WorkUsage, DecodeError> {
    Ok(WorkUsage {
        used_bytes: reader.u64()?,
        used_inodes: reader.u64()?,
        start_bytes: reader.u64()?,
        start_inodes: reader.u64()?,
        budget: get_budget(reader)?,
    })
}

fn get_area(reader: &mut Reader<'_>) -> Result<Area, DecodeError> {
    reader.word("area", |text| Area::ALL.into_iter().find(|area| area.as_str() == text))
}
