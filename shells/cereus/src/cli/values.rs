//! How values are written.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use cereus_coordinator::store::ApiKey;
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command};

/// What reads a key, whatever it was written in.
type ReadKey = fn(&[u8]) -> Result<String, String>;

/// Of an option that takes a key. The complaint does not repeat the value: it may be a secret.
#[derive(Clone)]
pub(super) struct KeyOption(pub(super) ReadKey);

impl TypedValueParser for KeyOption {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        option: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        (self.0)(value.as_encoded_bytes()).map_err(|why| {
            let option = option.map(Arg::to_string).unwrap_or_default();
            let text = format!("{option}: {why}\n");
            clap::Error::raw(ErrorKind::ValueValidation, text).with_cmd(command)
        })
    }
}

/// A key as a client can send it in a header: what stands around it is an editor's or a shell's.
pub(crate) fn parse_key(bytes: &[u8]) -> Result<String, String> {
    let key = bytes.trim_ascii();
    if key.is_empty() {
        return Err("the key is empty; is its variable set?".to_owned());
    }
    if !key.iter().all(u8::is_ascii_graphic) {
        return Err(
            "the key holds a blank or another byte outside visible ASCII, which no client could send \
             in a header; is there more than a key?"
                .to_owned(),
        );
    }
    Ok(key.iter().copied().map(char::from).collect())
}

/// A key that a coordinator made.
pub(crate) fn parse_account_key(bytes: &[u8]) -> Result<String, String> {
    let key = parse_key(bytes)?;
    if !ApiKey::has_form(&key) {
        return Err(
            "that is no key of a coordinator, or not all of one; `cereus key create` makes one, as in \
             sk-cereus-..."
                .to_owned(),
        );
    }
    Ok(key)
}

/// The key in a variable, if that is set: also when it is set to nothing, for whoever sets one
/// wants a key.
pub(crate) fn key_in_variable(name: &str, read: ReadKey) -> Result<Option<String>, String> {
    key_of_value(name, std::env::var_os(name).as_deref(), read)
}

fn key_of_value(
    name: &str,
    value: Option<&OsStr>,
    read: ReadKey,
) -> Result<Option<String>, String> {
    let key = value.map(|value| read(value.as_encoded_bytes()));
    key.transpose().map_err(|why| format!("{name}: {why}"))
}

/// Bytes of a file that holds a key and nothing else.
const KEY_FILE_SIZE_MAX: u64 = 4 << 10;

/// The key in the file that an option named.
pub(crate) fn key_in_file(option: &str, file: &Path, read: ReadKey) -> Result<String, String> {
    let shown = file.display();
    let unread = |error: io::Error| format!("cannot read {option} {shown}: {error}");
    // Before it is opened: that of a pipe would wait for its writer.
    if !fs::metadata(file).map_err(unread)?.is_file() {
        return Err(format!("{option} {shown} is no regular file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(file).map_err(unread)?;
    let read_size = file.take(KEY_FILE_SIZE_MAX + 1).read_to_end(&mut bytes);
    if read_size.map_err(unread)? as u64 > KEY_FILE_SIZE_MAX {
        return Err(format!(
            "{option} {shown} is larger than {KEY_FILE_SIZE_MAX} bytes, so it holds more than a key"
        ));
    }
    // Some editors begin every text with a byte order mark.
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    if text.trim_ascii().is_empty() {
        return Err(format!("{option} {shown} is empty"));
    }
    read(text).map_err(|why| format!("{option} {shown}: {why}"))
}

/// As [`parse_gib`], of which there must be some.
pub(super) fn parse_some_gib(text: &str) -> Result<u64, String> {
    let bytes = parse_gib(text)?;
    if bytes == 0 {
        return Err(format!(
            "`{text}`: expected more than nothing, for instance 4 or 0.5"
        ));
    }
    Ok(bytes)
}

/// Gibibytes as whole bytes.
pub(super) fn parse_gib(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}`: expected gibibytes, for instance 4 or 0.5");
    let millionths = millionths(text).ok_or_else(wrong)?;
    let bytes = (u128::from(millionths.unsigned_abs()) << 30) / 1_000_000;
    u64::try_from(bytes).map_err(|_| wrong())
}

/// A number without a sign and with at most six decimals.
pub(super) fn millionths(text: &str) -> Option<i64> {
    const DIGITS: usize = 6;
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || part.len() > DIGITS {
        return None;
    }
    format!("{whole}{part:0<DIGITS$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_key_is_what_a_header_can_carry_however_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        for (bytes, expected) in [
            (&b"sesame"[..], Ok("sesame")),
            (b" \t sesame\r\n", Ok("sesame")),
            (b"!~", Ok("!~")),
            (b"", Err("is empty")),
            (b" \n", Err("is empty")),
            (b"two keys", Err("visible ASCII")),
            (b"two\nkeys", Err("visible ASCII")),
            ("ses\u{e4}me".as_bytes(), Err("visible ASCII")),
            (b"ses\xffme", Err("visible ASCII")),
            (b"ses\x1bme", Err("visible ASCII")),
            (b"ses\x7fme", Err("visible ASCII")),
        ] {
            let value = OsStr::from_bytes(bytes);
            fs::write(&file, bytes).unwrap();
            for key in [
                parse_key(bytes),
                key_of_value("CEREUS_KEY", Some(value), parse_key).map(Option::unwrap),
                key_in_file("--key-file", &file, parse_key),
            ] {
                match expected {
                    Ok(expected) => assert_eq!(key.as_deref(), Ok(expected)),
                    Err(why) => {
                        let said = key.unwrap_err();
                        assert!(said.contains(why), "{said}");
                    }
                }
            }
        }
        assert_eq!(key_of_value("CEREUS_KEY", None, parse_key), Ok(None));
        fs::write(&file, b"\xef\xbb\xbfsesame\r\n").unwrap();
        let marked = key_in_file("--key-file", &file, parse_key);
        assert_eq!(marked.as_deref(), Ok("sesame"));
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said_with_where_it_came_from_and_without_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let whole = format!("sk-cereus-{}", "0a".repeat(32));
        let read = parse_account_key;
        assert_eq!(read(whole.as_bytes()).as_deref(), Ok(whole.as_str()));
        for wrong in [
            "sesame",
            "sk-cereus-0a0a",
            "sk-other-00",
            &whole[..whole.len() - 1],
            &whole.replace('a', "A"),
        ] {
            fs::write(&file, wrong).unwrap();
            let of_file = key_in_file("--earn-key-file", &file, read).unwrap_err();
            assert!(of_file.starts_with("--earn-key-file "), "{of_file}");
            let value = Some(OsStr::new(wrong));
            let of_value = key_of_value("CEREUS_EARN_KEY", value, read).unwrap_err();
            assert!(of_value.starts_with("CEREUS_EARN_KEY: "), "{of_value}");
            let key = Arg::new("key").long("earn-key").value_name("KEY");
            let command = Command::new("cereus").arg(key.value_parser(KeyOption(read)));
            let option = command.try_get_matches_from(["cereus", "--earn-key", wrong]);
            let of_option = option.unwrap_err().to_string();
            assert!(of_option.contains("--earn-key <KEY>: "), "{of_option}");
            for said in [of_file, of_value, of_option] {
                assert!(said.contains("cereus key create"), "{said}");
                assert!(!said.contains(&format!(" {wrong}")), "{said}");
            }
        }
    }

    #[test]
    fn a_key_is_read_from_a_small_regular_file_only() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for odd in [folder.path(), Path::new("/dev/zero"), pipe.as_path()] {
            let why = key_in_file("--key-file", odd, parse_key).unwrap_err();
            assert!(why.contains("no regular file"), "{why}");
        }
        let file = folder.path().join("key");
        fs::write(&file, "k".repeat(300 << 10)).unwrap();
        let why = key_in_file("--key-file", &file, parse_key).unwrap_err();
        assert!(why.contains("is larger than"), "{why}");
    }

    #[test]
    fn gibibytes_are_read_as_bytes() {
        for (text, bytes) in [("4", 4 << 30), ("0.5", 1 << 29), ("0", 0)] {
            assert_eq!(parse_gib(text), Ok(bytes));
        }
        for text in ["", "-1", "4GB", "9999999999999"] {
            assert!(parse_gib(text).is_err(), "{text}");
        }
    }
}
