//! Attributes in plain JSON, without OTLP's type wrappers: `{"app.result_length":3}`. The
//! console, the page and X-Ray's metadata share it.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::trace::Value;
use crate::trace::span::{Attribute, Metadata};

/// One object with the attributes, and the metadata as `namespace.key`.
pub(crate) struct Fields<'a>(pub(crate) &'a [Attribute], pub(crate) &'a [Metadata]);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        for attribute in self.0 {
            object.serialize_entry(attribute.key.as_ref(), &Plain(&attribute.value))?;
        }
        for metadata in self.1 {
            let key = format!("{}.{}", metadata.namespace, metadata.key);
            object.serialize_entry(&key, &Plain(&metadata.value))?;
        }
        object.end()
    }
}

/// Plain JSON value. JSON has no NaN and no infinity; they become text.
pub(crate) struct Plain<'a>(pub(crate) &'a Value);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::String(text) => serializer.serialize_str(text),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(number) => serializer.serialize_i64(*number),
            Value::Double(number) if number.is_finite() => serializer.serialize_f64(*number),
            Value::Double(number) => serializer.collect_str(number),
            Value::Map(entries) => Fields(entries, &[]).serialize(serializer),
        }
    }
}
