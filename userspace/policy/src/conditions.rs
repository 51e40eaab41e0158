//! What a syscall rule asks of a call: the entries of `when`.

use nexus_abi::Area;
use nexus_abi::syscall::{self, Kind, Syscall, Width};
use nexus_abi_policy::{ArgTest, Condition};
use toml::de::{DeTable, DeValue};

use crate::constants;
use crate::diagnostic::Code;
use crate::fields::{Reader, Value, integer_value, nearest, quote};
use crate::json::Json;
use crate::limits::{ARG_VALUES_MAX, CONDITIONS_PER_RULE_MAX};

/// A condition as it is written. How many bits count is each call's own; a width that is written is only held to it.
#[derive(Clone, Debug)]
pub(crate) enum Written {
    Arg { index: u8, test: ArgTest },
    Egress,
    Budget(Area),
}

const EXAMPLE: &str = "[{ arg = 0, width = 32, equal = \"AF_INET\" }]";

/// The calls that carry the address of a destination.
const WITH_DESTINATION: [&str; 5] = ["bind", "connect", "sendmmsg", "sendmsg", "sendto"];

/// The calls that can make a file grow.
const WITH_GROWTH: [&str; 12] = [
    "copy_file_range",
    "creat",
    "fallocate",
    "ftruncate",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "sendfile",
    "splice",
    "truncate",
    "write",
    "writev",
];

impl Written {
    pub(crate) fn canonical(&self) -> Json {
        match self {
            Self::Egress => Json::object([("egress", Json::Bool(true))]),
            Self::Budget(area) => Json::object([("budget", Json::text(area.as_str()))]),
            Self::Arg { index, test } => {
                let mut out = Json::object([("arg", Json::Number(u64::from(*index)))]);
                let hex = |value: &u64| Json::text(format!("{value:#x}"));
                match test {
                    ArgTest::Equal(value) => out.put("equal", hex(value)),
                    ArgTest::Masked { mask, value } => {
                        out.put("mask", hex(mask));
                        out.put("value", hex(value));
                    }
                    ArgTest::Range { first, last } => out.put("range", Json::Array(vec![hex(first), hex(last)])),
                    ArgTest::OneOf(values) => out.put("in", Json::Array(values.iter().map(hex).collect())),
                    ArgTest::AnyBit(mask) => out.put("any_bit", hex(mask)),
                }
                out
            }
        }
    }

    pub(crate) fn of_call(&self, number: u32) -> Condition {
        match self {
            Self::Egress => Condition::Egress,
            Self::Budget(area) => Condition::Budget(*area),
            Self::Arg { index, test } => {
                let own = syscall::by_number(number).and_then(|call| call.argument(usize::from(*index)));
                Condition::Arg {
                    index: *index,
                    width: own.map_or(Width::W64, Kind::width),
                    test: test.clone(),
                }
            }
        }
    }
}

/// The conditions of a rule for these calls. `None`: an error was reported.
pub(crate) fn parse(value: &Value<'_>, calls: &[&'static Syscall], reader: &mut Reader<'_>) -> Option<Vec<Written>> {
    let list = reader.list(value, "`when`", EXAMPLE, CONDITIONS_PER_RULE_MAX)?;
    if list.is_empty() {
        let help = "take it out for a rule without conditions";
        reader.error_help(Code::BadCondition, value.span(), "`when` has no condition", help);
        return None;
    }
    let mut out = Some(Vec::new());
    for entry in list {
        match condition(entry, calls, reader) {
            Some(condition) => {
                if let Some(out) = &mut out {
                    out.push(condition);
                }
            }
            None => out = None,
        }
    }
    out
}

fn condition(entry: &Value<'_>, calls: &[&'static Syscall], reader: &mut Reader<'_>) -> Option<Written> {
    let table = reader.table(entry, "a condition", EXAMPLE)?;
    let kinds: Vec<&str> = ["arg", "egress", "budget"]
        .into_iter()
        .filter(|key| table.contains_key(*key))
        .collect();
    let [kind] = kinds.as_slice() else {
        let help = "write { arg = … }, { egress = true } or { budget = \"tmp\" }, and several conditions one by one";
        reader.error_help(
            Code::BadCondition,
            entry.span(),
            "a condition speaks of one thing",
            help,
        );
        return None;
    };
    match *kind {
        "egress" => {
            reader.known_keys(table, &["egress"]);
            only_for(&WITH_DESTINATION, "destination", entry, calls, reader)?;
            match table.get("egress").and_then(|value| reader.boolean(value, "`egress`")) {
                Some(true) => Some(Written::Egress),
                Some(false) => {
                    let help = "write `egress = true`; what egress rules deny is denied anyhow";
                    reader.error_help(Code::BadCondition, entry.span(), "there is no `egress = false`", help);
                    None
                }
                None => None,
            }
        }
        "budget" => {
            reader.known_keys(table, &["budget"]);
            only_for(&WITH_GROWTH, "growth", entry, calls, reader)?;
            let areas = Area::ALL.map(|area| (area.as_str(), area));
            table
                .get("budget")
                .and_then(|value| reader.word(value, "`budget`", &areas))
                .map(Written::Budget)
        }
        _ => argument(entry, table, calls, reader),
    }
}

fn only_for(
    names: &[&str],
    what: &str,
    entry: &Value<'_>,
    calls: &[&'static Syscall],
    reader: &mut Reader<'_>,
) -> Option<()> {
    let Some(stranger) = calls.iter().find(|call| !names.contains(&call.name())) else {
        return Some(());
    };
    reader.error_help(
        Code::BadCondition,
        entry.span(),
        format!("`{}` has no {what} that could be judged", stranger.name()),
        format!("calls that have: {}", names.join(", ")),
    );
    None
}

fn argument(
    entry: &Value<'_>,
    table: &DeTable<'_>,
    calls: &[&'static Syscall],
    reader: &mut Reader<'_>,
) -> Option<Written> {
    reader.known_keys(
        table,
        &["arg", "width", "equal", "mask", "value", "range", "in", "any_bit"],
    );
    let index_value = table.get("arg")?;
    let index = reader
        .integer(index_value, "`arg`", 0, 5)
        .and_then(|index| u8::try_from(index).ok())?;
    let width = match table.get("width") {
        Some(value) => Some(width(value, reader)?),
        None => None,
    };
    let mut widths = Vec::new();
    for call in calls {
        let Some(kind) = call.argument(usize::from(index)) else {
            reader.error_help(
                Code::BadCondition,
                index_value.span(),
                format!("`{}` has no argument {index}", call.name()),
                format!("it has {}, counted from 0", call.arguments()),
            );
            return None;
        };
        let own = kind.width();
        if let (Some(given), Some(value)) = (width, table.get("width"))
            && given != own
        {
            reader.error_help(
                Code::BadCondition,
                value.span(),
                format!(
                    "the kernel reads {} bits of argument {index} of `{}`",
                    own.bits(),
                    call.name()
                ),
                format!("write `width = {}`, or leave it out", own.bits()),
            );
            return None;
        }
        widths.push((own, kind == Kind::Pointer, call.name()));
    }
    // The narrowest decides what a value may be; without calls an error was reported already.
    let narrowest = width
        .or(widths.iter().map(|(width, ..)| *width).min())
        .unwrap_or(Width::W64);
    let test = arg_test(entry, table, narrowest, reader)?;
    if let Some((.., name)) = widths.iter().find(|(_, is_pointer, _)| *is_pointer)
        && test != ArgTest::Equal(0)
    {
        reader.error_help(
            Code::BadCondition,
            entry.span(),
            format!("argument {index} of `{name}` is an address, and what lies there can change after the look"),
            "only `equal = 0`, no address at all, can be asked of it",
        );
        return None;
    }
    Some(Written::Arg { index, test })
}

fn width(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Width> {
    let bits = reader.integer(value, "`width`", 16, 64)?;
    let width = Width::from_bits(bits);
    if width.is_none() {
        reader.error_help(
            Code::BadValue,
            value.span(),
            format!("there is no width of {bits}"),
            "write 16, 32 or 64",
        );
    }
    width
}

fn arg_test(entry: &Value<'_>, table: &DeTable<'_>, width: Width, reader: &mut Reader<'_>) -> Option<ArgTest> {
    let tests: Vec<&str> = ["equal", "mask", "range", "in", "any_bit"]
        .into_iter()
        .filter(|key| table.contains_key(*key))
        .collect();
    let [test] = tests.as_slice() else {
        let help = "write one of equal = …, in = […], range = [first, last], any_bit = …, or mask = … and value = …";
        reader.error_help(
            Code::BadCondition,
            entry.span(),
            "an argument is tested in one way",
            help,
        );
        return None;
    };
    if *test != "mask"
        && let Some(value) = table.get("value")
    {
        reader.error_help(
            Code::BadCondition,
            value.span(),
            "`value` belongs to `mask`",
            "write `equal` for the whole",
        );
        return None;
    }
    let value = table.get(*test)?;
    match *test {
        "equal" => Some(ArgTest::Equal(number(value, width, reader)?)),
        "any_bit" => {
            let mask = number(value, width, reader)?;
            if mask == 0 {
                let help = "name the bits of which one must be set";
                reader.error_help(Code::BadCondition, value.span(), "no bits are looked at", help);
                return None;
            }
            Some(ArgTest::AnyBit(mask))
        }
        "mask" => {
            let mask = number(value, width, reader)?;
            let Some(wanted_value) = table.get("value") else {
                let help = "write { arg = 2, mask = \"PROT_EXEC\", value = 0 }";
                reader.error_help(Code::MissingKey, entry.span(), "`mask` lacks `value`", help);
                return None;
            };
            let wanted = number(wanted_value, width, reader)?;
            if mask == 0 || wanted & !mask != 0 {
                let help = "`value` has only bits that `mask` has, and `mask` has some";
                reader.error_help(
                    Code::BadCondition,
                    entry.span(),
                    "no argument or every one would match",
                    help,
                );
                return None;
            }
            Some(ArgTest::Masked { mask, value: wanted })
        }
        "range" => {
            let list = reader.list(value, "`range`", "[0, 4096]", 2)?;
            let [first, last] = list else {
                let help = "write the lowest and the highest, both included: [0, 4096]";
                reader.error_help(Code::BadCondition, value.span(), "a range has two ends", help);
                return None;
            };
            let (first, last) = (number(first, width, reader)?, number(last, width, reader)?);
            if first > last {
                let help = format!("write the lower end first: [{last}, {first}]; values are unsigned");
                reader.error_help(
                    Code::BadCondition,
                    value.span(),
                    "the range ends before it starts",
                    help,
                );
                return None;
            }
            Some(ArgTest::Range { first, last })
        }
        _ => {
            let list = reader.list(value, "`in`", "[\"AF_INET\", \"AF_INET6\"]", ARG_VALUES_MAX)?;
            let mut values = Vec::new();
            for entry in list {
                values.push(number(entry, width, reader)?);
            }
            values.sort_unstable();
            values.dedup();
            if values.is_empty() {
                let help = "name the values of which it must be one";
                reader.error_help(Code::BadCondition, value.span(), "the list of values is empty", help);
                return None;
            }
            Some(match values.as_slice() {
                [one] => ArgTest::Equal(*one),
                _ => ArgTest::OneOf(values),
            })
        }
    }
}

/// An integer, a number in a string, a constant, or several joined by `|`; within the width.
fn number(value: &Value<'_>, width: Width, reader: &mut Reader<'_>) -> Option<u64> {
    let number = match value.get_ref() {
        DeValue::Integer(integer) => integer_value(integer),
        DeValue::String(text) => {
            let mut all = 0_u64;
            for part in text.split('|') {
                all |= text_number(part.trim(), value, reader)?;
            }
            Some(i128::from(all))
        }
        _ => {
            reader.wrong_type(
                value,
                "a value",
                "write 42, \"0xffffffffffffffff\" or \"AF_INET|AF_INET6\"",
            );
            return None;
        }
    };
    // A negative number stands for its two's complement at this width: -100 for AT_FDCWD.
    let lowest = -(i128::from(width.mask()) / 2) - 1;
    match number {
        Some(number) if number >= 0 && number <= i128::from(width.mask()) => u64::try_from(number).ok(),
        Some(number) if number < 0 && number >= lowest => {
            let bits = i64::try_from(number).ok()?.cast_unsigned();
            Some(bits & width.mask())
        }
        _ => {
            let shown = quote(reader.text.get(value.span()).unwrap_or_default());
            reader.error_help(
                Code::BadCondition,
                value.span(),
                format!("{shown} does not fit the {} bits that the kernel reads", width.bits()),
                format!("the highest value is {:#x}", width.mask()),
            );
            None
        }
    }
}

fn text_number(part: &str, value: &Value<'_>, reader: &mut Reader<'_>) -> Option<u64> {
    let parsed = match part.strip_prefix("0x") {
        Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16).ok(),
        Some(_) => None,
        None if part.bytes().all(|byte| byte.is_ascii_digit()) => part.parse().ok(),
        None => constants::constant(part),
    };
    if parsed.is_none() && reader.report.has_room() {
        let help = match nearest(part, constants::names()) {
            Some(near) => format!("did you mean `{near}`? else write the number"),
            None => "write the number; a comment can say what it is".to_owned(),
        };
        let message = format!("{} is neither a number nor a known constant", quote(part));
        reader.error_help(Code::UnknownConstant, value.span(), message, help);
    }
    parsed
}
