//! The reading half. Every length is checked against what is left before anything is reserved.

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::{CodecError, MAX_DEPTH, tag};

pub(super) struct Reader<'de> {
    left: &'de [u8],
    depth: usize,
}

fn short() -> CodecError {
    CodecError::new("cut short")
}

impl<'de> Reader<'de> {
    pub(super) const fn new(bytes: &'de [u8]) -> Self {
        Self { left: bytes, depth: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    fn octet(&mut self) -> Result<u8, CodecError> {
        let (first, rest) = self.left.split_first().ok_or_else(short)?;
        self.left = rest;
        Ok(*first)
    }

    fn peek(&self) -> Result<u8, CodecError> {
        self.left.first().copied().ok_or_else(short)
    }

    fn varint(&mut self) -> Result<u64, CodecError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let octet = self.octet()?;
            if shift == 63 && octet > 1 {
                break;
            }
            value |= u64::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CodecError::new("a number too long"))
    }

    /// A length that what is left can hold: each item takes a byte at least.
    fn length(&mut self) -> Result<usize, CodecError> {
        let len = usize::try_from(self.varint()?).map_err(|_| short())?;
        if len > self.left.len() { Err(short()) } else { Ok(len) }
    }

    fn take(&mut self) -> Result<&'de [u8], CodecError> {
        let len = self.length()?;
        let (taken, rest) = self.left.split_at(len);
        self.left = rest;
        Ok(taken)
    }

    fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<T, CodecError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(CodecError::new("nested too deep"));
        }
        let value = read(self);
        self.depth -= 1;
        value
    }

    /// A list whose items come one by one, or a byte string read as a list of octets.
    fn list<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, CodecError> {
        match self.octet()? {
            tag::LIST => {
                let count = self.length()?;
                self.nested(|reader| {
                    let mut items = Items { reader, left: count };
                    let value = visitor.visit_seq(&mut items)?;
                    if items.left == 0 { Ok(value) } else { Err(CodecError::new("items left")) }
                })
            }
            tag::BYTES => {
                let bytes = self.take()?;
                visitor.visit_seq(de::value::SeqDeserializer::new(bytes.iter().copied()))
            }
            _ => Err(CodecError::new("not a list")),
        }
    }

    fn map<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, CodecError> {
        if self.octet()? != tag::MAP {
            return Err(CodecError::new("not a map"));
        }
        let count = self.length()?;
        self.nested(|reader| visitor.visit_map(Items { reader, left: count }))
    }
}

struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'_, 'de> {
    type Error = CodecError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, CodecError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> de::MapAccess<'de> for Items<'_, 'de> {
    type Error = CodecError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, CodecError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, CodecError> {
        seed.deserialize(&mut *self.reader)
    }
}

impl<'de> de::Deserializer<'de> for &mut Reader<'de> {
    type Error = CodecError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.peek()? {
            tag::LIST => return self.list(visitor),
            tag::MAP => return self.map(visitor),
            tag::NONE | tag::SOME => return self.deserialize_option(visitor),
            tag::VARIANT => return self.deserialize_enum("", &[], visitor),
            _ => {}
        }
        match self.octet()? {
            tag::UNIT => visitor.visit_unit(),
            tag::FALSE => visitor.visit_bool(false),
            tag::TRUE => visitor.visit_bool(true),
            tag::UNSIGNED => visitor.visit_u64(self.varint()?),
            tag::NEGATIVE => visitor.visit_i64(!self.varint()? as i64),
            tag::OCTET => visitor.visit_u8(self.octet()?),
            tag::BYTES => visitor.visit_bytes(self.take()?),
            tag::TEXT => {
                let text = std::str::from_utf8(self.take()?);
                visitor.visit_str(text.map_err(|_| CodecError::new("not UTF-8"))?)
            }
            _ => Err(CodecError::new("an unknown tag")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.octet()? {
            tag::NONE => visitor.visit_none(),
            tag::SOME => self.nested(|reader| visitor.visit_some(reader)),
            _ => Err(CodecError::new("not an option")),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        // An empty list does not know what it is a list of.
        if self.peek()? == tag::LIST { self.list(visitor) } else { self.deserialize_any(visitor) }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.list(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.list(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.list(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.list(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        if self.octet()? != tag::VARIANT {
            return Err(CodecError::new("not a variant"));
        }
        self.nested(|reader| visitor.visit_enum(Chosen { reader }))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string unit unit_struct map identifier
        ignored_any
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

struct Chosen<'a, 'de> {
    reader: &'a mut Reader<'de>,
}

impl<'de> de::EnumAccess<'de> for Chosen<'_, 'de> {
    type Error = CodecError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), CodecError> {
        let index = u32::try_from(self.reader.varint()?).map_err(|_| short())?;
        let value = seed.deserialize(IntoDeserializer::<CodecError>::into_deserializer(index))?;
        Ok((value, self))
    }
}

impl<'de> de::VariantAccess<'de> for Chosen<'_, 'de> {
    type Error = CodecError;

    fn unit_variant(self) -> Result<(), CodecError> {
        serde::Deserialize::deserialize(self.reader)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, CodecError> {
        seed.deserialize(self.reader)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.reader.list(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.reader.list(visitor)
    }
}
