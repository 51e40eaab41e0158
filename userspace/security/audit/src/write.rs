use crate::record::{RECORD_VERSION, Record};
use crate::text::{hex, needs_escape};
use alloc::string::String;
use core::fmt::Write as _;

/// A line without its chain and without its end: `{"v":1,…,"suppressed":0`. One form for one record: keys in this order,
/// no blanks, the shortest escapes.
pub(crate) fn body(seq: u64, record: &Record) -> String {
    let record = record.clone().bounded();
    let mut out = String::with_capacity(512);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "{{\"v\":{RECORD_VERSION},\"seq\":{seq},\"mono_ns\":{},\"time\":\"{}\"",
        record.mono_ns, record.time
    );
    text(&mut out, "subject", &record.subject);
    text(&mut out, "session", &record.session);
    text(&mut out, "op", record.op.as_str());
    text(&mut out, "object", &record.object);
    text(&mut out, "verdict", record.verdict.as_str());
    text(&mut out, "reason", record.reason.as_str());
    match record.verdict {
        crate::Judgement::Deny(errno) => match errno.name() {
            Some(name) => text(&mut out, "errno", name),
            None => {
                let _ = write!(out, ",\"errno\":\"{}\"", errno.raw());
            }
        },
        _ => out.push_str(",\"errno\":null"),
    }
    optional(&mut out, "rule", record.rule.as_deref());
    optional(&mut out, "at", record.at.as_deref());
    text(&mut out, "policy", &record.policy);
    let _ = write!(out, ",\"suppressed\":{}", record.suppressed);
    out
}

fn optional(out: &mut String, key: &str, value: Option<&str>) {
    match value {
        Some(value) => text(out, key, value),
        None => {
            let _ = write!(out, ",\"{key}\":null");
        }
    }
}

fn text(out: &mut String, key: &str, value: &str) {
    let _ = write!(out, ",\"{key}\":\"");
    for one in value.chars() {
        if needs_escape(one) {
            escape(out, one);
        } else {
            out.push(one);
        }
    }
    out.push('"');
}

fn escape(out: &mut String, one: char) {
    match one {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        other => {
            let mut units = [0_u16; 2];
            for unit in other.encode_utf16(&mut units) {
                let [high, low] = unit.to_be_bytes();
                out.push_str("\\u");
                for nibble in [high >> 4, high & 0xf, low >> 4, low & 0xf] {
                    out.push(hex(nibble));
                }
            }
        }
    }
}
