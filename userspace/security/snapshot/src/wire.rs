//! Values as bytes. Every value has one form; what is no value's form is refused.

use alloc::vec::Vec;

/// Why bytes are no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// They end before the value does.
    Short,
    /// A list says that it has more entries than the bytes that are left could hold.
    List,
    /// A text is not UTF-8.
    Text,
    /// A byte that says whether something is there is neither 0 nor 1.
    Flag,
}

/// The bytes that are left.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        usize::try_from(u32::get(self)?).map_err(|_| Malformed::List)
    }
}

/// A value with one form in bytes.
pub(crate) trait Wire<'a>: Sized {
    /// No value is shorter: bounds a list's length before its entries are read.
    const BYTES_MIN: usize;
    fn put(&self, out: &mut Vec<u8>);
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed>;
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl<'a> Wire<'a> for $type {
            const BYTES_MIN: usize = size_of::<$type>();
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
                let bytes = from.take(size_of::<$type>())?;
                Ok(<$type>::from_le_bytes(bytes.try_into().map_err(|_| Malformed::Short)?))
            }
        }
    )*};
}
number!(u8, u16, u32, u64, u128);

impl<'a> Wire<'a> for [u8; 32] {
    const BYTES_MIN: usize = 32;
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        from.take(32)?.try_into().map_err(|_| Malformed::Short)
    }
}

impl<'a> Wire<'a> for bool {
    const BYTES_MIN: usize = 1;
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        match u8::get(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Flag),
        }
    }
}

impl<'a> Wire<'a> for &'a str {
    const BYTES_MIN: usize = 4;
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let length = from.length()?;
        core::str::from_utf8(from.take(length)?).map_err(|_| Malformed::Text)
    }
}

impl<'a, T: Wire<'a>> Wire<'a> for Option<T> {
    const BYTES_MIN: usize = 1;
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(if bool::get(from)? { Some(T::get(from)?) } else { None })
    }
}

impl<'a, T: Wire<'a>> Wire<'a> for Vec<T> {
    const BYTES_MIN: usize = 4;
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        self.iter().for_each(|entry| entry.put(out));
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let length = from.length()?;
        if length > from.rest.len() / T::BYTES_MIN.max(1) {
            return Err(Malformed::List);
        }
        let mut out = Self::with_capacity(length);
        for _ in 0..length {
            out.push(T::get(from)?);
        }
        Ok(out)
    }
}

impl<'a, T: Wire<'a>, U: Wire<'a>> Wire<'a> for (T, U) {
    const BYTES_MIN: usize = T::BYTES_MIN.saturating_add(U::BYTES_MIN);
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok((T::get(from)?, U::get(from)?))
    }
}

/// What is longer than 32 bits can say is longer than a file may be: the frame refuses it.
fn put_length(length: usize, out: &mut Vec<u8>) {
    u32::try_from(length).unwrap_or(u32::MAX).put(out);
}

/// A struct whose form is that of its fields, in their order.
macro_rules! record {
    ($(#[$outer:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$outer])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name<'a> {
            $($(#[$doc])* pub $field: $type,)*
            /// Texts are borrowed from the bytes that were decoded.
            pub texts: core::marker::PhantomData<&'a str>,
        }

        impl<'a> $crate::wire::Wire<'a> for $name<'a> {
            const BYTES_MIN: usize = 0_usize$(.saturating_add(<$type as $crate::wire::Wire<'a>>::BYTES_MIN))*;
            fn put(&self, out: &mut alloc::vec::Vec<u8>) {
                $(self.$field.put(out);)*
            }
            fn get(from: &mut $crate::wire::Reader<'a>) -> Result<Self, $crate::wire::Malformed> {
                Ok(Self { $($field: $crate::wire::Wire::get(from)?,)* texts: core::marker::PhantomData })
            }
        }
    };
}
pub(crate) use record;
