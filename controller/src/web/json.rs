//! Messages of the control service as proto3 JSON (protobuf.dev/programming-guides/json), by their descriptors.
//!
//! Pure. Names are camelCase, 64-bit integers are text, enums are names, and what has its default is written too, so that
//! who reads need not know the defaults. What is read may spell names either way, and nothing in it may be unknown.

use bytes::Buf as _;
use fleetknock_proto::{status as refuse, v1::FILE_DESCRIPTOR_SET};
use prost_reflect::{
    DescriptorError, DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor,
    SerializeOptions, ServiceDescriptor, prost::Message as _,
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

const SERVICE: &str = "fleetknock.v1.ControlService";

/// The methods of the control service.
#[derive(Clone, Debug)]
pub struct Methods {
    service: ServiceDescriptor,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Method {
    method: MethodDescriptor,
}

/// Why the methods are not known: the descriptors that are part of the program are broken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MethodsError {
    /// They cannot be read.
    #[error("the descriptors cannot be read")]
    Broken(#[from] DescriptorError),
    /// The service is not among them.
    #[error("the descriptors have no {SERVICE}")]
    Missing,
}

impl Methods {
    /// Of the descriptors that are part of the program.
    ///
    /// # Errors
    /// When those are broken.
    pub fn new() -> Result<Self, MethodsError> {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET)?;
        let service = pool.get_service_by_name(SERVICE).ok_or(MethodsError::Missing)?;
        Ok(Self { service })
    }

    /// The method of this name.
    pub fn of(&self, name: &str) -> Option<Method> {
        self.service.methods().find(|method| method.name() == name).map(|method| Method { method })
    }
}

impl Method {
    /// As in `/fleetknock.v1.ControlService/Open`.
    pub fn path(&self) -> String {
        format!("/{SERVICE}/{}", self.method.name())
    }

    /// Whether it is answered more than once.
    pub fn is_stream(&self) -> bool {
        self.method.is_server_streaming()
    }

    /// A request of it; nothing is the empty one.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when the text is no JSON, or not that of such a request.
    pub fn read(&self, text: &[u8]) -> Result<DynamicMessage, Status> {
        let text = if text.trim_ascii().is_empty() { b"{}" } else { text };
        let wrong = |error: serde_json::Error| refuse::invalid("", format!("the body: {error}"));
        let mut reader = serde_json::Deserializer::from_slice(text);
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        let message = DynamicMessage::deserialize_with_options(self.method.input(), &mut reader, &options)
            .map_err(wrong)?;
        reader.end().map_err(wrong)?;
        Ok(message)
    }

    /// Carries its messages over gRPC.
    pub fn codec(&self) -> Dynamic {
        Dynamic { answer: self.method.output() }
    }
}

/// A message as JSON.
///
/// # Errors
/// INTERNAL when it cannot be written, as is the case with a date that no calendar has.
pub fn write(message: &DynamicMessage) -> Result<String, Status> {
    let options = SerializeOptions::new().skip_default_fields(false).stringify_64_bit_integers(true);
    let mut text = Vec::new();
    let written = message.serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options);
    written.map_err(|error| Status::internal(format!("the answer cannot be written: {error}")))?;
    String::from_utf8(text).map_err(|_| Status::internal("the answer is no text"))
}

/// Carries messages whose types are known by descriptors only.
#[derive(Clone, Debug)]
pub struct Dynamic {
    answer: MessageDescriptor,
}

impl Codec for Dynamic {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        self.clone()
    }

    fn decoder(&mut self) -> Self {
        self.clone()
    }
}

impl Encoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let whole = buffer.copy_to_bytes(buffer.remaining());
        let message = DynamicMessage::decode(self.answer.clone(), whole);
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
