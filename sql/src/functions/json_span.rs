//! Parts of a `json` value as they are written: `json` keeps its text, and so do its parts.
//!
//! The text has been checked when the value was made, so this only has to find where things end.

/// A place in the text.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Moves behind the string that begins here.
    fn string(&mut self) -> &'a str {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.byte() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                break;
            }
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Moves behind the value that begins here.
    fn value(&mut self) -> &'a str {
        self.blanks();
        let start = self.at;
        let mut depth = 0usize;
        while let Some(byte) = self.byte() {
            match byte {
                b'"' => {
                    self.string();
                    if depth == 0 {
                        break;
                    }
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 0 => break,
                b'}' | b']' if depth == 1 => {
                    self.at += 1;
                    break;
                }
                b'}' | b']' => depth -= 1,
                b',' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => break,
                _ => {}
            }
            self.at += 1;
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Moves behind a byte, if it is the next.
    fn take(&mut self, byte: u8) -> bool {
        self.blanks();
        let found = self.byte() == Some(byte);
        self.at += usize::from(found);
        found
    }
}

fn open(text: &str, bracket: u8) -> Option<Cursor<'_>> {
    let mut cursor = Cursor { text, at: 0 };
    if !cursor.take(bracket) {
        return None;
    }
    cursor.blanks();
    (!matches!(cursor.byte(), Some(b'}' | b']') | None)).then_some(cursor)
}

/// The value of a key of an object; of several the last.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut cursor = open(text, b'{')?;
    let mut found = None;
    loop {
        cursor.blanks();
        let key = cursor.string();
        cursor.take(b':');
        let value = cursor.value();
        if serde_json::from_str::<String>(key).is_ok_and(|key| key == name) {
            found = Some(value);
        }
        if !cursor.take(b',') {
            return found;
        }
    }
}

/// An element of an array; from the end if the index is negative.
pub(super) fn element(text: &str, index: i64) -> Option<&str> {
    let mut cursor = open(text, b'[')?;
    let mut items = Vec::new();
    loop {
        items.push(cursor.value());
        if index >= 0 && items.len() as i64 > index || !cursor.take(b',') {
            break;
        }
    }
    let index = if index < 0 { index + items.len() as i64 } else { index };
    items.get(usize::try_from(index).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_keep_their_text() {
        let text = r#" { "a" : [ 1 , "x]" ,{"b":2 }], "a\"b" :1.50, "a": [1,  2] , "e":[] } "#;
        assert_eq!(field(text, "a"), Some("[1,  2]"));
        assert_eq!(field(text, "a\"b"), Some("1.50"));
        assert_eq!(field(text, "e"), Some("[]"));
        assert_eq!(field(text, "z"), None);
        assert_eq!(field("{}", "z"), None);
        let array = r#"[ 1 , "x]" ,{"b":2 }, null]"#;
        assert_eq!(element(array, 1), Some(r#""x]""#));
        assert_eq!(element(array, 2), Some(r#"{"b":2 }"#));
        assert_eq!(element(array, -1), Some("null"));
        assert_eq!(element(array, 4), None);
        assert_eq!(element("[]", 0), None);
        assert_eq!(element("7", 0), None);
    }
}
