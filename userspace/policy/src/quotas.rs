//! `quotas.toml`: `[domain.tools.tmp]`, `[subject.demo.state]`.

use nexus_abi::Area;
use toml::de::DeTable;

use crate::diagnostic::Code;
use crate::fields::{Reader, Value, quote};
use crate::ipc;
use crate::json::Json;
use crate::limits::BUDGET_BLOCK_BYTES;
use crate::rules::{RuleKind, RuleTable};
use crate::scope::{Ruled, ScopeName};
use crate::size::{parse_size, render_size};

/// What a scope says of one area. A subject's key replaces its domain's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) soft: Option<Ruled<u64>>,
    pub(crate) hard: Option<Ruled<u64>>,
    pub(crate) inodes: Option<Ruled<u64>>,
}

/// What a scope says of its areas, in the order of [`Area::ALL`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Quotas {
    pub(crate) areas: [Limits; Area::ALL.len()],
    /// What it says of IPC.
    pub(crate) ipc: Option<ipc::Says>,
}

/// The key of what is bounded besides files.
const IPC: &str = "ipc";

/// The most inodes that may be written: what ext4 can hold (2^32).
const INODES_MAX: u64 = 1 << 32;

impl Quotas {
    pub(crate) fn area(&self, area: Area) -> Option<&Limits> {
        Area::ALL
            .iter()
            .zip(&self.areas)
            .find(|(each, _)| **each == area)
            .map(|(_, limits)| limits)
    }

    pub(crate) fn canonical(&self) -> Json {
        let mut out = Json::object([]);
        for (area, limits) in Area::ALL.iter().zip(&self.areas) {
            let mut says = Json::object([]);
            for (key, value) in [
                ("soft", &limits.soft),
                ("hard", &limits.hard),
                ("inodes", &limits.inodes),
            ] {
                if let Some(ruled) = value {
                    says.put(key, Json::Number(ruled.value));
                }
            }
            out.put(area.as_str(), says);
        }
        if let Some(ipc) = &self.ipc {
            out.put(IPC, ipc.canonical());
        }
        out
    }
}

pub(crate) fn parse(table: &DeTable<'_>, scope: &ScopeName, rules: &mut RuleTable, reader: &mut Reader<'_>) -> Quotas {
    let known: Vec<&str> = Area::ALL.iter().map(|area| area.as_str()).chain([IPC]).collect();
    reader.known_keys(table, &known);
    let mut quotas = Quotas::default();
    if let Some(value) = table.get(IPC) {
        let inner = reader.table(value, "`ipc`", "{ shm = \"64MiB\", segments = 64 }");
        quotas.ipc = inner.map(|inner| ipc::parse(inner, scope, rules, reader));
    }
    for (area, limits) in Area::ALL.iter().zip(&mut quotas.areas) {
        let Some(value) = table.get(area.as_str()) else {
            continue;
        };
        let example = "{ soft = \"48MiB\", hard = \"64MiB\", inodes = 4096 }";
        let Some(inner) = reader.table(value, &format!("`{area}`"), example) else {
            continue;
        };
        reader.known_keys(inner, &["soft", "hard", "inodes"]);
        let mut limit = |key: &str, reader: &mut Reader<'_>| {
            let (name, value) = inner.get_key_value(key)?;
            let number = match key {
                "inodes" => reader.integer(value, "`inodes`", 0, INODES_MAX),
                _ => size(value, key, reader),
            }?;
            let place = reader.place(name.span().start..value.span().end);
            let says = Json::object([("area", Json::text(area.as_str())), (key, Json::Number(number))]);
            let rule = rules.add(RuleKind::Quota, &scope.canonical(), &says, place.clone(), reader.report);
            Some(Ruled {
                value: number,
                rule,
                place,
            })
        };
        limits.soft = limit("soft", reader);
        limits.hard = limit("hard", reader);
        limits.inodes = limit("inodes", reader);
    }
    quotas
}

pub(crate) fn size(value: &Value<'_>, key: &str, reader: &mut Reader<'_>) -> Option<u64> {
    let text = reader.string(value, &format!("`{key}`"), "\"64MiB\"")?;
    match parse_size(text) {
        Ok(bytes) if bytes % BUDGET_BLOCK_BYTES == 0 => Some(bytes),
        Ok(bytes) => {
            let below = bytes - bytes % BUDGET_BLOCK_BYTES;
            let help = match below.checked_add(BUDGET_BLOCK_BYTES) {
                Some(above) => format!("the nearest are {} and {}", render_size(below), render_size(above)),
                None => format!("the nearest is {}", render_size(below)),
            };
            reader.error_help(
                Code::BadSize,
                value.span(),
                format!("{} is not a multiple of {BUDGET_BLOCK_BYTES} bytes", quote(text)),
                help,
            );
            None
        }
        Err(help) => {
            reader.error_help(Code::BadSize, value.span(), format!("{} is no size", quote(text)), help);
            None
        }
    }
}
