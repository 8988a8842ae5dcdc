//! The writing half.

use serde::ser::{self, Serialize};
use zeroize::Zeroizing;

use super::{CHUNK_ITEMS, CodecError, Encoded, tag};

/// Fewest items that a list has to be cut.
const LONG_LIST: usize = 2 * CHUNK_ITEMS;

#[derive(Default)]
pub(super) struct Writer {
    out: Zeroizing<Vec<u8>>,
    cuts: Vec<usize>,
}

impl Writer {
    pub(super) fn finish(self) -> Encoded {
        let mut chunks = Vec::with_capacity(self.cuts.len() + 1);
        let mut start = 0;
        for end in self.cuts.into_iter().chain([self.out.len()]) {
            if end > start || (start == 0 && end == self.out.len()) {
                chunks.push(Zeroizing::new(self.out[start..end].to_vec()));
                start = end;
            }
        }
        Encoded { chunks }
    }

    fn tag(&mut self, tag: u8) {
        self.push(tag);
    }

    /// Grows by hand: a plain push would leave a copy of the secrets behind when it moves them.
    fn push(&mut self, byte: u8) {
        self.append(&[byte]);
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.out.capacity() - self.out.len() < bytes.len() {
            let wanted = (self.out.len() + bytes.len()).max(256) * 2;
            let mut larger = Zeroizing::new(Vec::with_capacity(wanted));
            larger.extend_from_slice(&self.out);
            self.out = larger;
        }
        self.out.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn number(&mut self, value: u64) {
        self.tag(tag::UNSIGNED);
        self.varint(value);
    }

    fn list(&mut self, len: usize) -> Items<'_> {
        let header = self.out.len();
        self.tag(tag::LIST);
        self.varint(len as u64);
        let items = self.out.len();
        Items { long: len >= LONG_LIST, header, items, written: 0, octets: false, writer: self }
    }

    fn variant(&mut self, index: u32) {
        self.tag(tag::VARIANT);
        self.varint(u64::from(index));
    }
}

/// The items of a list that is being written.
pub(super) struct Items<'a> {
    writer: &'a mut Writer,
    /// Where the list begins, and where its first item does.
    header: usize,
    items: usize,
    written: usize,
    long: bool,
    /// Whether the items are single octets, which become one byte string.
    octets: bool,
}

impl Items<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        if self.long && !self.octets && self.written.is_multiple_of(CHUNK_ITEMS) && self.written > 0
        {
            self.writer.cuts.push(self.writer.out.len());
        }
        let start = self.writer.out.len();
        value.serialize(&mut *self.writer)?;
        let is_octet = self.writer.out.get(start) == Some(&tag::OCTET);
        if self.written == 0 && is_octet {
            self.octets = true;
            self.writer.out[self.header] = tag::BYTES;
        }
        if self.octets && is_octet {
            let octet = self.writer.out[start + 1];
            self.writer.out.truncate(start);
            self.writer.push(octet);
        } else if self.octets {
            self.untangle(start);
        }
        self.written += 1;
        Ok(())
    }

    /// A tuple that began with octets goes on with something else: what became a byte string up to
    /// `end` is a list again.
    fn untangle(&mut self, end: usize) {
        let tail = Zeroizing::new(self.writer.out[self.items..].to_vec());
        let octets = end - self.items;
        self.writer.out[self.header] = tag::LIST;
        self.writer.out.truncate(self.items);
        for octet in &tail[..octets] {
            self.writer.append(&[tag::OCTET, *octet]);
        }
        self.writer.append(&tail[octets..]);
        self.octets = false;
    }
}

macro_rules! numbers {
    ($($name:ident($ty:ty)),+) => {
        $(fn $name(self, value: $ty) -> Result<(), CodecError> {
            self.number(u64::from(value));
            Ok(())
        })+
    };
}

macro_rules! signed {
    ($($name:ident($ty:ty)),+) => {
        $(fn $name(self, value: $ty) -> Result<(), CodecError> {
            let value = i64::from(value);
            if value < 0 {
                self.tag(tag::NEGATIVE);
                self.varint(!(value as u64));
            } else {
                self.number(value as u64);
            }
            Ok(())
        })+
    };
}

impl<'a> ser::Serializer for &'a mut Writer {
    type Ok = ();
    type Error = CodecError;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Items<'a>;
    type SerializeTupleVariant = Items<'a>;
    type SerializeMap = Items<'a>;
    type SerializeStruct = Items<'a>;
    type SerializeStructVariant = Items<'a>;

    numbers!(serialize_u16(u16), serialize_u32(u32), serialize_u64(u64));
    signed!(serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64));

    fn serialize_u8(self, value: u8) -> Result<(), CodecError> {
        self.append(&[tag::OCTET, value]);
        Ok(())
    }

    fn serialize_bool(self, value: bool) -> Result<(), CodecError> {
        self.tag(if value { tag::TRUE } else { tag::FALSE });
        Ok(())
    }

    fn serialize_f32(self, _: f32) -> Result<(), CodecError> {
        Err(CodecError::new("a float"))
    }

    fn serialize_f64(self, _: f64) -> Result<(), CodecError> {
        Err(CodecError::new("a float"))
    }

    fn serialize_char(self, value: char) -> Result<(), CodecError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), CodecError> {
        self.tag(tag::TEXT);
        self.varint(value.len() as u64);
        self.append(value.as_bytes());
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), CodecError> {
        self.tag(tag::BYTES);
        self.varint(value.len() as u64);
        self.append(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), CodecError> {
        self.tag(tag::NONE);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CodecError> {
        self.tag(tag::SOME);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), CodecError> {
        self.tag(tag::UNIT);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CodecError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
    ) -> Result<(), CodecError> {
        self.variant(index);
        self.serialize_unit()
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        self.variant(index);
        value.serialize(self)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Items<'a>, CodecError> {
        let len = len.ok_or_else(|| CodecError::new("a list of unknown length"))?;
        Ok(self.list(len))
    }

    fn serialize_tuple(self, len: usize) -> Result<Items<'a>, CodecError> {
        Ok(self.list(len))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Items<'a>, CodecError> {
        Ok(self.list(len))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Items<'a>, CodecError> {
        self.variant(index);
        Ok(self.list(len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Items<'a>, CodecError> {
        let len = len.ok_or_else(|| CodecError::new("a map of unknown length"))?;
        let items = self.list(len);
        items.writer.out[items.header] = tag::MAP;
        Ok(items)
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Items<'a>, CodecError> {
        Ok(self.list(len))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Items<'a>, CodecError> {
        self.variant(index);
        Ok(self.list(len))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

macro_rules! items {
    ($($name:ident::$method:ident),+) => {
        $(impl ser::$name for Items<'_> {
            type Ok = ();
            type Error = CodecError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
                self.item(value)
            }

            fn end(self) -> Result<(), CodecError> {
                Ok(())
            }
        })+
    };
}

items!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

macro_rules! fields {
    ($($name:ident),+) => {
        $(impl ser::$name for Items<'_> {
            type Ok = ();
            type Error = CodecError;

            // Fields are written bare, also single octets: a list of them is no byte string.
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                _: &'static str,
                value: &T,
            ) -> Result<(), CodecError> {
                value.serialize(&mut *self.writer)
            }

            fn end(self) -> Result<(), CodecError> {
                Ok(())
            }
        })+
    };
}

fields!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Items<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CodecError> {
        key.serialize(&mut *self.writer)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), CodecError> {
        Ok(())
    }
}
