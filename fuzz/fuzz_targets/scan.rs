//! The type scan: never wrong where it answers, and the same as the general decoder and as a naive
//! reader of the members.
#![no_main]

use std::borrow::Cow;

use cereus_core::wire::scan::{TypeUnreadable, decode_type, frame_type, scan_type};
use cereus_fuzz::nested::unfolded;
use libfuzzer_sys::fuzz_target;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

fuzz_target!(|input: &[u8]| {
    let frame = unfolded(input);
    let scanned = scan_type(&frame);
    let decoded = decode_type(&frame);
    if let (Some(found), Ok(right)) = (scanned, &decoded) {
        assert_eq!(found, right, "the scan answered, and wrongly");
    }
    let either = frame_type(&frame);
    if let Some(found) = scanned {
        assert_eq!(either.as_deref(), Ok(found));
    } else {
        assert_eq!(either, decoded);
    }
    if core::str::from_utf8(&frame).is_ok() {
        assert_eq!(decoded.map(Cow::into_owned), by_members(&frame));
    }
});

/// Reads every member, then looks at each: slow and plain.
fn by_members(frame: &[u8]) -> Result<String, TypeUnreadable> {
    let Members(members) = serde_json::from_slice(frame).map_err(|_| TypeUnreadable)?;
    let mut found = String::new();
    for (key, value) in members {
        if key.eq_ignore_ascii_case("type") && value.get() != "null" {
            found = serde_json::from_str(value.get()).map_err(|_| TypeUnreadable)?;
        }
    }
    Ok(found)
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = vec![];
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}
