//! Messages with every field set, made from the descriptors of the wire: a field that is added there is in the corpus as
//! soon as it is written anew.

use std::collections::BTreeMap;

use fleetknock_proto::v1::FILE_DESCRIPTOR_SET;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};

use super::{File, file};
use crate::targets::messages;

/// How deep messages lie in each other.
const DEPTH_MAX: usize = 8;

pub(super) fn agent() -> Vec<File> {
    let samples = Samples::read();
    let mut files = samples.variants("AgentMessage", &[]);
    files.push(file("almost-cut", cut(samples.variants("AgentMessage", &[]), "hello")));
    // Field 15 of the message, a length of 4 GiB, and nothing.
    files.push(file("almost-unknown-field", [0x7a, 0xff, 0xff, 0xff, 0xff, 0x0f]));
    files
}

pub(super) fn controller() -> Vec<File> {
    let samples = Samples::read();
    let mut files = samples.variants("ControllerMessage", &[]);
    files.push(file("almost-cut", cut(samples.variants("ControllerMessage", &[]), "snapshot")));
    files
}

pub(super) fn peer() -> Vec<File> {
    let samples = Samples::read();
    ["PeerMessage", "PeerReply"]
        .into_iter()
        .zip(0u8..)
        .flat_map(|(name, at)| samples.variants(name, &[at]))
        .collect()
}

/// Those of the control service and of enrolment; the others lie in the other corpora.
pub(super) fn control() -> Vec<File> {
    let samples = Samples::read();
    let of_files = ["fleetknock/v1/control.proto", "fleetknock/v1/enrolment.proto"];
    let mut files = vec![];
    for (name, (of_file, message)) in &samples.messages {
        let Some(number) = messages::number(name) else { continue };
        if of_files.contains(&of_file.as_str()) && !message.field.is_empty() {
            files.push(file(name.as_str(), samples.sample(name, None, &[number])));
        }
    }
    files
}

fn cut(files: Vec<File>, name: &str) -> Vec<u8> {
    let found = files.into_iter().find(|(known, _)| known.ends_with(name));
    found.map(|(_, bytes)| bytes[..bytes.len() / 2].to_vec()).unwrap_or_default()
}

/// All messages by name, entries of maps by the name of their message and theirs, each with its file.
struct Samples {
    messages: BTreeMap<String, (String, DescriptorProto)>,
}

impl Samples {
    fn read() -> Self {
        let mut messages = BTreeMap::new();
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
        for of_file in set.file {
            for message in of_file.message_type {
                for nested in &message.nested_type {
                    let name = format!("{}.{}", message.name(), nested.name());
                    messages.insert(name, (of_file.name.clone().unwrap_or_default(), nested.clone()));
                }
                messages
                    .insert(message.name().to_owned(), (of_file.name.clone().unwrap_or_default(), message));
            }
        }
        Self { messages }
    }

    /// One for each of the kinds that a message can be, behind these bytes.
    fn variants(&self, name: &str, begin: &[u8]) -> Vec<File> {
        let fields = self.messages.get(name).map(|(_, message)| message.field.as_slice()).unwrap_or_default();
        let of_field = |field: &FieldDescriptorProto| {
            let bytes = self.sample(name, Some(field.number()), begin);
            file(format!("{name}-{}", field.name()), bytes)
        };
        fields.iter().map(of_field).collect()
    }

    fn sample(&self, name: &str, variant: Option<i32>, begin: &[u8]) -> Vec<u8> {
        let mut bytes = begin.to_vec();
        Sampler { samples: self, ports: 0 }.message(name, variant, 0, &mut bytes);
        bytes
    }
}

struct Sampler<'a> {
    samples: &'a Samples,
    /// Ports so far: no step may knock at what its door opens.
    ports: u64,
}

impl Sampler<'_> {
    /// Every field; of fields that exclude each other the one of this number, or the first.
    fn message(&mut self, name: &str, variant: Option<i32>, depth: usize, bytes: &mut Vec<u8>) {
        let Some((_, message)) = self.samples.messages.get(name).filter(|_| depth < DEPTH_MAX) else {
            return;
        };
        let mut chosen = vec![];
        for field in &message.field {
            if let Some(oneof) = field.oneof_index {
                if variant.is_some_and(|variant| variant != field.number()) || chosen.contains(&oneof) {
                    continue;
                }
                chosen.push(oneof);
            }
            self.field(message, field, depth, bytes);
        }
    }

    fn field(
        &mut self,
        of: &DescriptorProto,
        field: &FieldDescriptorProto,
        depth: usize,
        bytes: &mut Vec<u8>,
    ) {
        let number = u32::try_from(field.number()).unwrap_or(1);
        let length_delimited = |value: &[u8], bytes: &mut Vec<u8>| {
            encode_key(number, WireType::LengthDelimited, bytes);
            encode_varint(value.len() as u64, bytes);
            bytes.extend_from_slice(value);
        };
        match field.r#type() {
            Type::Message => {
                let name = field.type_name().trim_start_matches(".fleetknock.v1.");
                let mut value = vec![];
                self.message(name, None, depth + 1, &mut value);
                length_delimited(&value, bytes);
            }
            Type::String => length_delimited(text(field.name()).as_bytes(), bytes),
            Type::Bytes if field.name() == "boot" => length_delimited(&[7; 16], bytes),
            Type::Bytes => length_delimited(&[203, 0, 113, 5], bytes),
            Type::Double => {
                encode_key(number, WireType::SixtyFourBit, bytes);
                bytes.extend_from_slice(&45.5f64.to_le_bytes());
            }
            _ => {
                encode_key(number, WireType::Varint, bytes);
                encode_varint(self.integer(of.name(), field), bytes);
            }
        }
    }

    fn integer(&mut self, of: &str, field: &FieldDescriptorProto) -> u64 {
        match (field.r#type(), of, field.name()) {
            (Type::Bool | Type::Enum, ..) => 1,
            (_, "Port" | "Observation", "port") => {
                self.ports += 1;
                7_411 + self.ports
            }
            (_, _, "first") => 1_024,
            (_, _, "last") => 2_048,
            (_, _, "length") => 1,
            (_, _, name) if name.ends_with("_ms") => 15_000,
            (_, _, name) if name.ends_with("_us") => 1_700_000_000_000_000,
            _ => 7,
        }
    }
}

/// What a field of this name takes.
fn text(field: &str) -> &str {
    match field {
        "source" | "addresses" | "unbanned" | "observed_address" => "203.0.113.5",
        "sources" | "management" => "10.0.0.0/8",
        "name" | "names" | "host" | "hosts" | "door" | "controller" | "meant" | "last_host" => "db-1",
        "id" => "0123456789abcdef",
        "key" => "role",
        "value" => "edge",
        "page_token" | "next_page_token" => "",
        other => other,
    }
}
