//! What TASK-0043 asks to be proven on a host, by the pure crates alone: no kernel feature, no clock, no journal. One test
//! a bullet at least; what the live sandbox does is in `tests/live`.

mod abi;
mod audit;
mod desk;
mod egress;
mod quotas;
