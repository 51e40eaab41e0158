use crate::PortRange;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use nexus_abi::RuleRef;

/// An address as a number: `u32` or `u128`.
pub(crate) trait Bits: Copy + Ord {
    /// The highest address.
    const HIGHEST: Self;
    /// The last address of the prefix that starts here.
    fn last(self, prefix: u8) -> Self;
    /// The next address, `None` after the last.
    fn next(self) -> Option<Self>;
    /// The one before, `None` before the first.
    fn previous(self) -> Option<Self>;
}

impl Bits for u32 {
    const HIGHEST: Self = Self::MAX;
    fn last(self, prefix: u8) -> Self {
        self | !crate::cidr::mask4(prefix)
    }
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

impl Bits for u128 {
    const HIGHEST: Self = Self::MAX;
    fn last(self, prefix: u8) -> Self {
        self | !crate::cidr::mask6(prefix)
    }
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

/// One rule as a layer takes it.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a, A> {
    pub(crate) address: A,
    pub(crate) prefix: u8,
    pub(crate) ports: &'a [PortRange],
    pub(crate) rule: RuleRef,
}

/// No node.
pub(crate) const NONE: u32 = u32::MAX;

/// All rules with the same prefix: its place in the nesting and its ports.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// The node of the next shorter prefix that covers this one.
    parent: u32,
    prefix: u8,
    /// The first of its ports: most have no more, and a look at [`Layer::more`] is a cache miss.
    ports: PortSpan,
    /// Where the others start in [`Layer::more`], and where they end.
    more_start: u32,
    more_end: u32,
}

/// Ports of one prefix and the rule that has them; those of a node are sorted and do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PortSpan {
    first: u16,
    last: u16,
    rule: RuleRef,
}

/// The rules of one effect, protocol and address family, by prefix.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    nodes: Vec<Node>,
    more: Vec<PortSpan>,
}

/// A stretch of addresses from `start` on, and the node of the longest prefix that covers it, or [`NONE`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<A> {
    pub(crate) start: A,
    pub(crate) top: u32,
}

/// A layer would need more than its numbers can count. Unreachable within the limits of [`crate::EgressTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerTooBig;

impl Layer {
    pub(crate) const EMPTY: Self = Self {
        nodes: Vec::new(),
        more: Vec::new(),
    };

    /// The layer, and the pieces that the edges of its prefixes cut the address space into, sorted. What comes before
    /// the first piece is covered by nothing.
    pub(crate) fn compile<A: Bits>(entries: &mut [Entry<'_, A>]) -> Result<(Self, Vec<Piece<A>>), LayerTooBig> {
        // Nesting order: a covering prefix stands before what it covers.
        entries.sort_by_key(|entry| (entry.address, entry.prefix, entry.rule));
        let mut layer = Self::EMPTY;
        let mut pieces = Vec::new();
        // The prefixes that cover the place we are at, longest last, each with its last address.
        let mut open: Vec<(u32, A)> = Vec::new();
        for group in entries.chunk_by(|a, b| a.address == b.address && a.prefix == b.prefix) {
            let Some(head) = group.first() else { continue };
            close(&mut open, Some(head.address), &mut pieces);
            let node = u32::try_from(layer.nodes.len()).map_err(|_| LayerTooBig)?;
            let mut spans = merge_ports(group).into_iter();
            // Rules without ports are refused before they get here.
            let Some(ports) = spans.next() else { continue };
            let more_start = u32::try_from(layer.more.len()).map_err(|_| LayerTooBig)?;
            layer.more.extend(spans);
            let more_end = u32::try_from(layer.more.len()).map_err(|_| LayerTooBig)?;
            let parent = open.last().map_or(NONE, |(parent, _)| *parent);
            layer.nodes.push(Node {
                parent,
                prefix: head.prefix,
                ports,
                more_start,
                more_end,
            });
            open.push((node, head.address.last(head.prefix)));
            cut(&mut pieces, head.address, node);
        }
        close(&mut open, None, &mut pieces);
        layer.nodes.shrink_to_fit();
        layer.more.shrink_to_fit();
        Ok((layer, pieces))
    }

    /// The rule with the longest prefix, but none shorter than `shortest`, that has the port: from `top`, the longest
    /// prefix there, outwards. Rarely more than two or three steps, never more than an address has bits.
    pub(crate) fn find(&self, top: u32, port: u16, shortest: u8) -> Option<RuleRef> {
        let mut at = top;
        // Ends: a parent's prefix is shorter than its child's. NONE is past every node.
        while let Some(node) = self.nodes.get(usize::try_from(at).ok()?) {
            if node.prefix < shortest {
                return None;
            }
            if node.ports.first <= port {
                if port <= node.ports.last {
                    return Some(node.ports.rule);
                }
                if let Some(rule) = self.find_more(node, port) {
                    return Some(rule);
                }
            }
            at = node.parent;
        }
        None
    }

    fn find_more(&self, node: &Node, port: u16) -> Option<RuleRef> {
        let start = usize::try_from(node.more_start).ok()?;
        let end = usize::try_from(node.more_end).ok()?;
        let spans = self.more.get(start..end)?;
        let span = spans.get(spans.partition_point(|span| span.last < port))?;
        if span.first <= port { Some(span.rule) } else { None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// Closes the prefixes that end before `before`, all of them where there is nothing more: what follows each belongs to
/// the one around it.
fn close<A: Bits>(open: &mut Vec<(u32, A)>, before: Option<A>, pieces: &mut Vec<Piece<A>>) {
    while let Some((_, last)) = open.last().copied() {
        if before.is_some_and(|before| before <= last) {
            return;
        }
        open.pop();
        if let Some(next) = last.next() {
            cut(pieces, next, open.last().map_or(NONE, |(node, _)| *node));
        }
    }
}

/// From `start` on, `top` is the longest prefix.
fn cut<A: Bits>(pieces: &mut Vec<Piece<A>>, start: A, top: u32) {
    match pieces.last_mut() {
        // Two edges at one address: the later one knows better.
        Some(last) if last.start == start => last.top = top,
        _ => pieces.push(Piece { start, top }),
    }
}

/// The ports of all rules of one prefix; where several have a port, the one that stands first in the policy gets it.
fn merge_ports<A>(group: &[Entry<'_, A>]) -> Vec<PortSpan> {
    let mut out: Vec<PortSpan> = Vec::new();
    // A sweep over the ports: each edge opens or closes a rule; the lowest open rule has the ports up to the next edge.
    let mut edges: Vec<(u32, bool, RuleRef)> = Vec::new();
    for entry in group {
        for range in entry.ports {
            edges.push((u32::from(range.first()), true, entry.rule));
            edges.push((u32::from(range.last()).saturating_add(1), false, entry.rule));
        }
    }
    edges.sort_unstable();
    // A rule may be open more than once where its own ranges overlap, or where two rules have one number.
    let mut open: BTreeSet<(RuleRef, usize)> = BTreeSet::new();
    let mut depth: BTreeMap<RuleRef, usize> = BTreeMap::new();
    let mut from = 0_u32;
    for (at, opens, rule) in edges {
        if let Some((holder, _)) = open.first()
            && from < at
            && let (Ok(first), Ok(last)) = (u16::try_from(from), u16::try_from(at.saturating_sub(1)))
        {
            match out.last_mut() {
                Some(span) if span.rule == *holder && span.last.checked_add(1) == Some(first) => span.last = last,
                _ => out.push(PortSpan {
                    first,
                    last,
                    rule: *holder,
                }),
            }
        }
        from = at;
        let count = depth.entry(rule).or_insert(0);
        if opens {
            *count = count.saturating_add(1);
            open.insert((rule, *count));
        } else {
            open.remove(&(rule, *count));
            *count = count.saturating_sub(1);
        }
    }
    out
}
