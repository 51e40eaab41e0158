use crate::layer::{Bits, Entry, Layer, LayerTooBig, NONE, Piece};
use crate::search::Search;
use alloc::vec::Vec;
use nexus_abi::RuleRef;

/// The rules of one protocol and address family.
///
/// The address space is cut at every edge of every prefix; each piece knows the longest prefix of each effect that
/// covers it, and each prefix the next shorter one. One search finds the piece, a walk up the nesting the longest prefix
/// that has the port. Linear memory: at most two pieces a prefix.
#[derive(Clone, Debug)]
pub(crate) struct Family<A> {
    starts: Search<A, Tops>,
    allow: Layer,
    deny: Layer,
}

/// The longest prefix of each effect that covers a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tops {
    allow: u32,
    deny: u32,
}

impl<A: Bits> Family<A> {
    pub(crate) const EMPTY: Self = Self {
        starts: Search::EMPTY,
        allow: Layer::EMPTY,
        deny: Layer::EMPTY,
    };

    pub(crate) fn compile(allow: &mut [Entry<'_, A>], deny: &mut [Entry<'_, A>]) -> Result<Self, LayerTooBig> {
        let (allow, allow_pieces) = Layer::compile(allow)?;
        let (deny, deny_pieces) = Layer::compile(deny)?;
        Ok(Self {
            starts: Search::new(&merge(&allow_pieces, &deny_pieces)),
            allow,
            deny,
        })
    }

    /// The place of an address, for [`Self::allowing`] and [`Self::denying`].
    pub(crate) fn place(&self, address: A) -> Tops {
        self.starts.last_not_above(address).unwrap_or(Tops {
            allow: NONE,
            deny: NONE,
        })
    }

    /// The allow rule with the longest prefix, but none shorter than `shortest`.
    pub(crate) fn allowing(&self, place: Tops, port: u16, shortest: u8) -> Option<RuleRef> {
        self.allow.find(place.allow, port, shortest)
    }

    /// The deny rule with the longest prefix.
    pub(crate) fn denying(&self, place: Tops, port: u16) -> Option<RuleRef> {
        self.deny.find(place.deny, port, 0)
    }

    /// Whether there is an allow rule at all.
    pub(crate) fn opens(&self) -> bool {
        !self.allow.is_empty()
    }
}

/// Both effects' pieces as one row of pieces.
fn merge<A: Bits>(allow: &[Piece<A>], deny: &[Piece<A>]) -> Vec<(A, Tops)> {
    let mut pieces: Vec<(A, Tops)> = Vec::new();
    let (mut allow, mut deny) = (allow.iter().peekable(), deny.iter().peekable());
    let mut now = Tops {
        allow: NONE,
        deny: NONE,
    };
    loop {
        let start = match (allow.peek(), deny.peek()) {
            (Some(a), Some(d)) => a.start.min(d.start),
            (Some(only), None) | (None, Some(only)) => only.start,
            (None, None) => break,
        };
        if let Some(piece) = allow.next_if(|piece| piece.start == start) {
            now.allow = piece.top;
        }
        if let Some(piece) = deny.next_if(|piece| piece.start == start) {
            now.deny = piece.top;
        }
        if pieces.last().is_none_or(|(_, last)| *last != now) {
            pieces.push((start, now));
        }
    }
    pieces
}
