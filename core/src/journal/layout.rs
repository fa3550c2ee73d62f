//! How values lie in a record, apart from the types that the program works with.
//!
//! A layout is a type without values that reads and writes another type, its live type, in postcard's
//! encoding. The macros make layouts of structs and enums from one line a field or a variant. They
//! take the live value apart by name: when a live type grows, the build stops here, and whoever
//! grows it decides what old records mean.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::writer::append;
use crate::ids::{AccountId, AttemptKey, ConnId, MachineId, ModelIx, RequestId};
use crate::money::MicroUsd;
use crate::prefix::Prefix;
use crate::time::{Span, Tick};
use crate::traits::Traits;

/// Reads a live value from the front of `bytes`.
pub(super) trait Take<Live> {
    fn take(bytes: &mut &[u8]) -> Option<Live>;
}

/// Appends a live value.
pub(super) trait Put<Live: ?Sized> {
    fn put(live: &Live, out: &mut Vec<u8>);
}

/// Reads what postcard can read by itself.
pub(super) fn take_leaf<T: DeserializeOwned>(bytes: &mut &[u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    *bytes = rest;
    Some(value)
}

pub(super) fn put_leaf<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    append(value, out);
}

/// Numbers, ids and units are their own layouts: each is one number, or a fixed few.
macro_rules! leaves {
    ($($type:ty),* $(,)?) => {$(
        impl Take<Self> for $type {
            fn take(bytes: &mut &[u8]) -> Option<Self> {
                take_leaf(bytes)
            }
        }

        impl Put<Self> for $type {
            fn put(live: &Self, out: &mut Vec<u8>) {
                put_leaf(live, out);
            }
        }
    )*};
}

leaves!(
    AccountId,
    AttemptKey,
    ConnId,
    MachineId,
    MicroUsd,
    ModelIx,
    Prefix,
    RequestId,
    Span,
    String,
    Tick,
    Traits,
    bool,
    u128,
    u16,
    u32,
    u64,
    u8,
    Option<u64>,
    Option<u128>,
);

/// A list of `L`, counted.
pub(super) struct List<L>(core::marker::PhantomData<L>);

impl<Live, L: Take<Live>> Take<Vec<Live>> for List<L> {
    fn take(bytes: &mut &[u8]) -> Option<Vec<Live>> {
        let count: u64 = take_leaf(bytes)?;
        // Each takes a byte at least: a count beyond that is a lie, and no reason to reserve.
        let count = usize::try_from(count)
            .ok()
            .filter(|it| *it <= bytes.len())?;
        (0..count).map(|_| L::take(bytes)).collect()
    }
}

impl<Live, L: Put<Live>> Put<[Live]> for List<L> {
    fn put(live: &[Live], out: &mut Vec<u8>) {
        put_leaf(&(live.len() as u64), out);
        for item in live {
            L::put(item, out);
        }
    }
}

impl<Live: Clone, L: Take<Live>> Take<std::borrow::Cow<'static, [Live]>> for List<L> {
    fn take(bytes: &mut &[u8]) -> Option<std::borrow::Cow<'static, [Live]>> {
        <Self as Take<Vec<Live>>>::take(bytes).map(std::borrow::Cow::Owned)
    }
}

impl<Live: Clone, L: Put<Live>> Put<std::borrow::Cow<'_, [Live]>> for List<L> {
    fn put(live: &std::borrow::Cow<'_, [Live]>, out: &mut Vec<u8>) {
        <Self as Put<[Live]>>::put(live, out);
    }
}

/// An `L` that an event may only have borrowed.
pub(super) struct Whole<L>(core::marker::PhantomData<L>);

impl<Live: Clone, L: Take<Live>> Take<std::borrow::Cow<'static, Live>> for Whole<L> {
    fn take(bytes: &mut &[u8]) -> Option<std::borrow::Cow<'static, Live>> {
        L::take(bytes).map(std::borrow::Cow::Owned)
    }
}

impl<Live: Clone, L: Put<Live>> Put<std::borrow::Cow<'_, Live>> for Whole<L> {
    fn put(live: &std::borrow::Cow<'_, Live>, out: &mut Vec<u8>) {
        L::put(live, out);
    }
}

/// An `L` that may be missing.
pub(super) struct Maybe<L>(core::marker::PhantomData<L>);

impl<Live, L: Take<Live>> Take<Option<Live>> for Maybe<L> {
    fn take(bytes: &mut &[u8]) -> Option<Option<Live>> {
        if bool::take(bytes)? {
            L::take(bytes).map(Some)
        } else {
            Some(None)
        }
    }
}

impl<Live, L: Put<Live>> Put<Option<Live>> for Maybe<L> {
    fn put(live: &Option<Live>, out: &mut Vec<u8>) {
        bool::put(&live.is_some(), out);
        if let Some(live) = live {
            L::put(live, out);
        }
    }
}

/// `name: Live { field: Layout, ... }`: a struct, its fields in this order.
///
/// `name: was Live { ... } plus rest` only reads: an older layout, whose missing fields come from
/// `rest`.
macro_rules! structure {
    ($(#[$doc:meta])* $name:ident: $live:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl Take<$live> for $name {
            fn take(bytes: &mut &[u8]) -> Option<$live> {
                $(let $field = <$type as Take<_>>::take(bytes)?;)*
                Some($live { $($field),* })
            }
        }

        impl Put<$live> for $name {
            fn put(live: &$live, out: &mut Vec<u8>) {
                let $live { $($field),* } = live;
                $(<$type as Put<_>>::put($field, out);)*
            }
        }
    };
    ($(#[$doc:meta])* $name:ident: was $live:ident { $($field:ident: $type:ty),* $(,)? }
        plus $rest:expr) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl Take<$live> for $name {
            fn take(bytes: &mut &[u8]) -> Option<$live> {
                $(let $field = <$type as Take<_>>::take(bytes)?;)*
                #[allow(clippy::needless_update)]
                Some($live { $($field,)* ..$rest })
            }
        }
    };
}

/// `name: Live { number Variant { field: Layout, ... }, ... }`: an enum, each variant under a number
/// of its own. A variant without fields has empty braces; the field of a tuple variant is written
/// `@0 name: Layout`. A live type with a lifetime is written `Live<'static, '_>`.
///
/// `was { number |bytes| read, ... }` lists what is only read: numbers whose layout is a past one.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident: $live:ident $(<$owned:lifetime, $lent:lifetime>)? {
        $($number:literal $variant:ident {
            $($(@$place:tt)? $field:ident: $type:ty),* $(,)?
        }),* $(,)?
    } $(was { $($old:literal |$bytes:ident| $read:expr),* $(,)? })?) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl Take<$live $(<$owned>)?> for $name {
            fn take(bytes: &mut &[u8]) -> Option<$live $(<$owned>)?> {
                let number: u32 = take_leaf(bytes)?;
                match number {
                    $($number => {
                        $(let $field = <$type as Take<_>>::take(bytes)?;)*
                        Some($live::$variant { $($($place:)? $field),* })
                    })*
                    $($($old => {
                        let $bytes = bytes;
                        $read
                    })*)?
                    // A number of a later build.
                    _ => None,
                }
            }
        }

        impl Put<$live $(<$lent>)?> for $name {
            fn put(live: &$live $(<$lent>)?, out: &mut Vec<u8>) {
                match live {
                    $($live::$variant { $($($place:)? $field),* } => {
                        const NUMBER: u32 = $number;
                        put_leaf(&NUMBER, out);
                        $(<$type as Put<_>>::put($field, out);)*
                    })*
                }
            }
        }
    };
}

pub(super) use {choice, structure};
