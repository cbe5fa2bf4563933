//! How is a text shown that others have chosen?
//!
//! A name may hold any bytes but NUL and a slash: ends of lines, or sequences that make a terminal do something. [`shown`] quotes a name as
//! `ls -b` does (without its quoting of spaces), so that the name can be told exactly. [`Plain`] lets no control character through that is
//! left in a whole message, wherever the message comes from; it leaves what `shown` has made as it is.
//!
//! JSON has its own quoting, and is not to go through either.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::ffi::OsStrExt as _;

/// A name as it is shown.
pub(crate) fn shown<N: AsRef<OsStr> + ?Sized>(name: &N) -> Shown<'_> {
    Shown(name.as_ref())
}

/// A name as it is shown.
pub(crate) struct Shown<'a>(&'a OsStr);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.as_bytes().utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\\' => f.write_str("\\\\")?,
                    character => put(f, character)?,
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\{byte:03o}"))?;
        }
        Ok(())
    }
}

/// Writes a character, or what stands for it.
fn put(f: &mut impl fmt::Write, character: char) -> fmt::Result {
    match character {
        '\x07' => f.write_str("\\a"),
        '\x08' => f.write_str("\\b"),
        '\t' => f.write_str("\\t"),
        '\n' => f.write_str("\\n"),
        '\x0b' => f.write_str("\\v"),
        '\x0c' => f.write_str("\\f"),
        '\r' => f.write_str("\\r"),
        character if character.is_control() || turns(character) => {
            character.encode_utf8(&mut [0; 4]).bytes().try_for_each(|byte| write!(f, "\\{byte:03o}"))
        }
        character => f.write_char(character),
    }
}

/// Whether a character ends a line, or changes the direction in which others are shown.
fn turns(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A whole message on one line.
pub(crate) fn line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for character in message.chars() {
        // To write into a string cannot fail.
        let _ = put(&mut line, if character == '\n' { ' ' } else { character });
    }
    line
}

/// Lets lines of text through, and no other control character.
pub(crate) struct Plain<W>(pub(crate) W);

impl<W: io::Write> io::Write for Plain<W> {
    /// Takes whole texts: a character must not be divided between two calls, or its bytes are quoted.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut plain = String::with_capacity(text.len());
        for chunk in text.utf8_chunks() {
            for character in chunk.valid().chars() {
                let outcome =
                    if character == '\n' { plain.write_char('\n') } else { put(&mut plain, character) };
                outcome.map_err(io::Error::other)?;
            }
            chunk
                .invalid()
                .iter()
                .try_for_each(|byte| write!(plain, "\\{byte:03o}"))
                .map_err(io::Error::other)?;
        }
        self.0.write_all(plain.as_bytes())?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Standard output, for text.
pub(crate) fn output() -> Plain<io::Stdout> {
    Plain(io::stdout())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn names_are_quoted() {
        for (name, expected) in [
            (&b"plain name"[..], "plain name"),
            ("äöü→".as_bytes(), "äöü→"),
            (b"\x1b[2J\x1b]0;title\x07", "\\033[2J\\033]0;title\\a"),
            (b"a\nb\tc\r\x0b\x0c\x08\x7f", "a\\nb\\tc\\r\\v\\f\\b\\177"),
            (b"back\\slash\\n", "back\\\\slash\\\\n"),
            (b"\xff\x80a", "\\377\\200a"),
            // A control character of eight bits, and characters that turn the text.
            ("\u{9b}31m".as_bytes(), "\\302\\23331m"),
            ("\u{202e}txt\u{2028}".as_bytes(), "\\342\\200\\256txt\\342\\200\\250"),
        ] {
            assert_eq!(shown(OsStr::from_bytes(name)).to_string(), expected);
        }
    }

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        let message = format!("{}: a\nb\x1b[31m", shown("x\ny\\"));
        assert_eq!(line(&message), "x\\ny\\\\: a b\\033[31m");
    }

    #[test]
    fn lines_of_text_pass() {
        let mut plain = Plain(Vec::new());
        plain.write_all("ä: \x1b]0;t\x07\nsecond\n".as_bytes()).unwrap();
        plain.write_all(b"\xff").unwrap();
        assert_eq!(plain.0, "ä: \\033]0;t\\a\nsecond\n\\377".as_bytes());
    }
}
