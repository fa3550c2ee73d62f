//! Borrowed text, and objects that forgive what the reference coordinator forgives.

use core::fmt;
use core::ops::Deref;
use std::borrow::Cow;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A JSON string: borrowed from the frame unless it was escaped.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<'a>(pub Cow<'a, str>);

impl Text<'_> {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same text, free of the frame.
    #[must_use]
    pub fn into_owned(self) -> Text<'static> {
        Text(Cow::Owned(self.0.into_owned()))
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }

        deserializer.deserialize_str(Any)
    }
}

/// Decodes an object as the reference coordinator does: each field keeps its default when its key
/// is absent or `null`, the last duplicate wins, unknown keys are skipped.
///
/// Around a struct the keys are the names of its fields. Where they are not, they are listed.
macro_rules! tolerant {
    (
        $(#[$meta:meta])*
        pub struct $name:ident<$a:lifetime> {
            $($(#[$field_meta:meta])* pub $field:ident: $field_ty:ty),* $(,)?
        }
    ) => {
        $(#[$meta])*
        pub struct $name<$a> {
            $($(#[$field_meta])* pub $field: $field_ty),*
        }

        tolerant!($a, $name<$a>, { $(stringify!($field) => $field),* });
    };
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $field_ty:ty),* $(,)?
        }
    ) => {
        $(#[$meta])*
        pub struct $name {
            $($(#[$field_meta])* pub $field: $field_ty),*
        }

        tolerant!('a, $name, { $(stringify!($field) => $field),* });
    };
    ($a:lifetime, $ty:ty, { $($key:pat => $field:ident),* $(,)? }) => {
        impl<'de: $a, $a> ::serde::Deserialize<'de> for $ty {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Members<$a>(::core::marker::PhantomData<&$a ()>);

                impl<'de: $a, $a> ::serde::de::Visitor<'de> for Members<$a> {
                    type Value = $ty;

                    fn expecting(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: ::serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<Self::Value, A::Error> {
                        let mut value = <$ty>::default();
                        while let Some(key) = map.next_key::<$crate::wire::Text<'de>>()? {
                            match key.as_str() {
                                $($key => {
                                    if let Some(found) = map.next_value()? {
                                        value.$field = found;
                                    }
                                })*
                                _ => {
                                    map.next_value::<::serde::de::IgnoredAny>()?;
                                }
                            }
                        }
                        Ok(value)
                    }
                }

                deserializer.deserialize_map(Members(::core::marker::PhantomData))
            }
        }
    };
}

pub(crate) use tolerant;

/// For `skip_serializing_if`.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
