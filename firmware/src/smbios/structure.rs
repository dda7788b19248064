//! How a structure is written: header, formatted fields, strings (DSP0134 3.0 §6.1).

/// A field of the formatted area.
#[derive(Clone, Copy)]
pub(super) enum Field<'a> {
    Byte(u8),
    Word(u16),
    Double(u32),
    Quad(u64),
    /// So many zero bytes.
    Zeros(usize),
    /// A string's number; 0 for an empty one.
    Text(&'a str),
    /// A UUID in the order it is written in: its first three fields are little-endian (§7.2.1).
    Uuid([u8; 16]),
}

/// Structures one after the other.
#[derive(Default)]
pub(super) struct Structures(Vec<u8>);

impl Structures {
    pub fn add(&mut self, kind: u8, handle: u16, fields: &[Field<'_>]) {
        let start = self.0.len();
        self.0.extend_from_slice(&[kind, 0]);
        self.0.extend_from_slice(&handle.to_le_bytes());
        let mut strings: Vec<&str> = Vec::new();
        for field in fields {
            match field {
                Field::Byte(value) => self.0.push(*value),
                Field::Word(value) => self.0.extend_from_slice(&value.to_le_bytes()),
                Field::Double(value) => self.0.extend_from_slice(&value.to_le_bytes()),
                Field::Quad(value) => self.0.extend_from_slice(&value.to_le_bytes()),
                Field::Zeros(count) => self.0.resize(self.0.len() + count, 0),
                Field::Text("") => self.0.push(0),
                Field::Text(text) => {
                    strings.push(text);
                    self.0.push(strings.len() as u8);
                }
                Field::Uuid([a, b, c, d, e, f, g, h, rest @ ..]) => {
                    self.0.extend_from_slice(&[*d, *c, *b, *a, *f, *e, *h, *g]);
                    self.0.extend_from_slice(rest);
                }
            }
        }
        self.0[start + 1] = (self.0.len() - start) as u8;
        for text in &strings {
            self.0.extend_from_slice(text.as_bytes());
            self.0.push(0);
        }
        // The set of strings ends with an empty one; without any string there are two zeros.
        let end: &[u8] = if strings.is_empty() { &[0, 0] } else { &[0] };
        self.0.extend_from_slice(end);
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}
