use crate::PortRange;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use nexus_abi::RuleRef;

/// An address as a number: `u32` or `u128`.
pub(crate) trait Bits: Copy + Ord {
    /// The lowest address.
    const ZERO: Self;
    /// The last address of the prefix that starts here.
    fn last(self, prefix: u8) -> Self;
    /// The next address, `None` after the last.
    fn next(self) -> Option<Self>;
}

impl Bits for u32 {
    const ZERO: Self = 0;
    fn last(self, prefix: u8) -> Self {
        self | !crate::cidr::mask4(prefix)
    }
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Bits for u128 {
    const ZERO: Self = 0;
    fn last(self, prefix: u8) -> Self {
        self | !crate::cidr::mask6(prefix)
    }
    fn next(self) -> Option<Self> {
        self.checked_add(1)
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
const NONE: u32 = u32::MAX;

/// All rules with the same prefix: its place in the nesting and its ports.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// The node of the next shorter prefix that covers this one.
    parent: u32,
    /// Where this node's part of [`Layer::ports`] starts, and where it ends.
    ports_start: u32,
    ports_end: u32,
    prefix: u8,
}

/// Ports of one prefix and the rule that has them; those of a node are sorted and do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PortSpan {
    first: u16,
    last: u16,
    rule: RuleRef,
}

/// The rules of one effect, protocol and address family.
///
/// The address space is cut at every edge of a prefix; each piece knows the longest prefix that covers it, and each
/// prefix the next shorter one. One binary search and a walk up the nesting (rarely longer than two or three, never
/// longer than the address has bits) find the longest prefix with a port. Linear memory: at most two pieces a prefix.
#[derive(Clone, Debug)]
pub(crate) struct Layer<A> {
    /// The first address of each piece, sorted; the first piece starts at zero. Empty where there are no rules.
    starts: Vec<A>,
    /// The node of each piece, or [`NONE`].
    tops: Vec<u32>,
    nodes: Vec<Node>,
    ports: Vec<PortSpan>,
}

/// A layer would need more than its numbers can count. Unreachable within the limits of [`crate::EgressTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerTooBig;

impl<A: Bits> Layer<A> {
    pub(crate) const EMPTY: Self = Self {
        starts: Vec::new(),
        tops: Vec::new(),
        nodes: Vec::new(),
        ports: Vec::new(),
    };

    pub(crate) fn compile(entries: &mut [Entry<'_, A>]) -> Result<Self, LayerTooBig> {
        // Nesting order: a covering prefix stands before what it covers.
        entries.sort_by_key(|entry| (entry.address, entry.prefix, entry.rule));
        let mut layer = Self::EMPTY;
        // The prefixes that cover the place we are at, longest last, each with its last address.
        let mut open: Vec<(u32, A)> = Vec::new();
        for group in entries.chunk_by(|a, b| a.address == b.address && a.prefix == b.prefix) {
            let Some(head) = group.first() else { continue };
            while let Some((_, last)) = open.last().copied() {
                if head.address <= last {
                    break;
                }
                layer.close(&mut open, last);
            }
            let node = u32::try_from(layer.nodes.len()).map_err(|_| LayerTooBig)?;
            let ports_start = u32::try_from(layer.ports.len()).map_err(|_| LayerTooBig)?;
            merge_ports(group, &mut layer.ports);
            let ports_end = u32::try_from(layer.ports.len()).map_err(|_| LayerTooBig)?;
            let parent = open.last().map_or(NONE, |(parent, _)| *parent);
            layer.nodes.push(Node {
                parent,
                ports_start,
                ports_end,
                prefix: head.prefix,
            });
            open.push((node, head.address.last(head.prefix)));
            layer.piece(head.address, node);
        }
        while let Some((_, last)) = open.last().copied() {
            layer.close(&mut open, last);
        }
        if layer.starts.first().is_some_and(|first| *first != A::ZERO) {
            layer.starts.insert(0, A::ZERO);
            layer.tops.insert(0, NONE);
        }
        layer.starts.shrink_to_fit();
        layer.tops.shrink_to_fit();
        layer.nodes.shrink_to_fit();
        layer.ports.shrink_to_fit();
        Ok(layer)
    }

    /// The innermost open prefix ends at `last`: what follows belongs to the one around it.
    fn close(&mut self, open: &mut Vec<(u32, A)>, last: A) {
        open.pop();
        if let Some(next) = last.next() {
            let around = open.last().map_or(NONE, |(node, _)| *node);
            self.piece(next, around);
        }
    }

    /// From `start` on, `top` is the longest prefix.
    fn piece(&mut self, start: A, top: u32) {
        if self.starts.last() == Some(&start) {
            // Two edges at one address: the later one knows better.
            if let Some(last) = self.tops.last_mut() {
                *last = top;
            }
        } else {
            self.starts.push(start);
            self.tops.push(top);
        }
    }

    /// The rule with the longest prefix, but none shorter than `shortest`, that covers the address and has the port.
    pub(crate) fn find(&self, address: A, port: u16, shortest: u8) -> Option<RuleRef> {
        let piece = self.starts.partition_point(|start| *start <= address).checked_sub(1)?;
        let mut at = *self.tops.get(piece)?;
        // Ends: a parent's prefix is shorter than its child's. NONE is past every node.
        while let Some(node) = self.nodes.get(usize::try_from(at).ok()?) {
            if node.prefix < shortest {
                return None;
            }
            let start = usize::try_from(node.ports_start).ok()?;
            let end = usize::try_from(node.ports_end).ok()?;
            let spans = self.ports.get(start..end)?;
            let index = spans.partition_point(|span| span.last < port);
            if let Some(span) = spans.get(index)
                && span.first <= port
            {
                return Some(span.rule);
            }
            at = node.parent;
        }
        None
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// The ports of all rules of one prefix; where several have a port, the one that stands first in the policy gets it.
fn merge_ports<A>(group: &[Entry<'_, A>], out: &mut Vec<PortSpan>) {
    // A sweep over the ports: each edge opens or closes a rule; the lowest open rule has the ports up to the next edge.
    let mut edges: Vec<(u32, bool, RuleRef)> = Vec::new();
    for entry in group {
        for range in entry.ports {
            edges.push((u32::from(range.first()), true, entry.rule));
            edges.push((u32::from(range.last()).saturating_add(1), false, entry.rule));
        }
    }
    edges.sort_unstable();
    let own_start = out.len();
    // A rule may be open more than once where its own ranges overlap, or where two rules have one number.
    let mut open: BTreeSet<(RuleRef, usize)> = BTreeSet::new();
    let mut depth: alloc::collections::BTreeMap<RuleRef, usize> = alloc::collections::BTreeMap::new();
    let mut from = 0_u32;
    for (at, opens, rule) in edges {
        if let Some((holder, _)) = open.first()
            && from < at
            && let (Ok(first), Ok(last)) = (u16::try_from(from), u16::try_from(at.saturating_sub(1)))
        {
            let own = out.get_mut(own_start..).and_then(<[PortSpan]>::last_mut);
            match own {
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
}
