//! What was released stays true: programs of the versions before this one understand what this one says, and the other way
//! round. `proto/released` holds the descriptors of each; see deploy/upgrades.md.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{collections::BTreeMap, fs, path::Path};

use fleetknock_proto::v1::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
};

#[test]
fn the_contract_of_every_release_is_kept() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("released");
    let mut releases = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let broken = broken(&fs::read(&path).unwrap(), FILE_DESCRIPTOR_SET);
        assert!(broken.is_empty(), "not what {} promised:\n{}", path.display(), broken.join("\n"));
        releases += 1;
    }
    assert!(releases > 0, "no released contract to compare with");
}

/// Each way to break what is promised is found.
#[test]
fn every_break_is_found() {
    type Break = fn(&mut FileDescriptorSet);
    let breaks: [(&str, Break); 9] = [
        ("field door of ApplyDoorRequest is gone", |set| {
            drop(message(set, "ApplyDoorRequest").field.remove(0))
        }),
        ("has another number", |set| message(set, "OpenRequest").field[0].number = Some(99)),
        ("is called door_name", |set| message(set, "OpenRequest").field[0].name = Some("door_name".into())),
        ("is called theDoor in JSON", |set| {
            message(set, "OpenRequest").field[0].json_name = Some("theDoor".into())
        }),
        ("has another type", |set| message(set, "OpenRequest").field[0].r#type = Some(12)),
        ("is in another oneof", |set| message(set, "AgentMessage").field[0].oneof_index = None),
        ("message Hello is gone", |set| {
            let file = set.file.iter_mut().find(|file| file.name().ends_with("agent.proto")).unwrap();
            file.message_type.retain(|message| message.name() != "Hello");
        }),
        ("value 1 of EventKind is", |set| {
            let file = set.file.iter_mut().find(|file| file.name().ends_with("control.proto")).unwrap();
            let kinds = file.enum_type.iter_mut().find(|one| one.name() == "EventKind").unwrap();
            kinds.value[1].name = Some("EVENT_KIND_OTHER".into());
        }),
        ("method Attach", |set| {
            let file = set.file.iter_mut().find(|file| file.name().ends_with("agent.proto")).unwrap();
            file.service[0].method[0].server_streaming = Some(false);
        }),
    ];
    for (said, spoil) in breaks {
        let mut set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        spoil(&mut set);
        let found = broken(FILE_DESCRIPTOR_SET, &set.encode_to_vec());
        assert!(found.iter().any(|line| line.contains(said)), "{said}: {found:?}");
    }
    assert!(broken(FILE_DESCRIPTOR_SET, FILE_DESCRIPTOR_SET).is_empty());
}

fn message<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut DescriptorProto {
    let mut messages = set.file.iter_mut().flat_map(|file| &mut file.message_type);
    messages.find(|message| message.name() == name).unwrap()
}

/// What is no longer as it was, a line for each. What is new is no break: who does not know it passes over it.
fn broken(before: &[u8], after: &[u8]) -> Vec<String> {
    let (before, after) = (Contract::of(before), Contract::of(after));
    let mut broken = Vec::new();
    for (name, old) in &before.messages {
        match after.messages.get(name) {
            None => broken.push(format!("message {name} is gone")),
            Some(new) => same_fields(name, old, new, &mut broken),
        }
    }
    for (name, old) in &before.enums {
        let Some(new) = after.enums.get(name) else {
            broken.push(format!("enum {name} is gone"));
            continue;
        };
        for value in &old.value {
            let now = new.value.iter().find(|now| now.number() == value.number());
            if now.map(|now| now.name()) != Some(value.name()) {
                let now = now.map_or("gone", |now| now.name());
                broken.push(format!("value {} of {name} is {now}, not {}", value.number(), value.name()));
            }
        }
    }
    for (name, old) in &before.methods {
        let shape = |method: &MethodDescriptorProto| {
            let (input, output) = (method.input_type().to_owned(), method.output_type().to_owned());
            (input, output, method.client_streaming(), method.server_streaming())
        };
        if after.methods.get(name).map(shape) != Some(shape(old)) {
            broken.push(format!("method {name} is gone or takes and gives something else"));
        }
    }
    broken
}

fn same_fields(name: &str, old: &DescriptorProto, new: &DescriptorProto, broken: &mut Vec<String>) {
    let oneof = |message: &DescriptorProto, field: &FieldDescriptorProto| {
        let index = usize::try_from(field.oneof_index?).ok()?;
        message.oneof_decl.get(index).map(|oneof| oneof.name().to_owned())
    };
    for field in &old.field {
        let what = format!("field {} of {name}", field.name());
        let Some(now) = new.field.iter().find(|now| now.number() == field.number()) else {
            let moved = new.field.iter().any(|now| now.name() == field.name());
            broken.push(if moved { format!("{what} has another number") } else { format!("{what} is gone") });
            continue;
        };
        if now.name() != field.name() {
            broken.push(format!("{what} is called {}", now.name()));
        }
        if now.json_name() != field.json_name() {
            broken.push(format!("{what} is called {} in JSON", now.json_name()));
        }
        if (now.r#type, now.label, &now.type_name) != (field.r#type, field.label, &field.type_name) {
            broken.push(format!("{what} has another type"));
        }
        if oneof(new, now) != oneof(old, field) {
            broken.push(format!("{what} is in another oneof"));
        }
    }
    for range in &old.reserved_range {
        for now in new.field.iter().filter(|now| (range.start()..range.end()).contains(&now.number())) {
            broken.push(format!("field {} of {name} has a number that was taken out of use", now.name()));
        }
    }
}

/// Everything of `fleetknock.v1`, by its name.
struct Contract {
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, EnumDescriptorProto>,
    methods: BTreeMap<String, MethodDescriptorProto>,
}

impl Contract {
    fn of(bytes: &[u8]) -> Self {
        let set = FileDescriptorSet::decode(bytes).unwrap();
        let mut contract =
            Self { messages: BTreeMap::new(), enums: BTreeMap::new(), methods: BTreeMap::new() };
        for file in set.file.iter().filter(|file| file.package() == "fleetknock.v1") {
            contract.add("", &file.message_type, &file.enum_type);
            for service in &file.service {
                for method in &service.method {
                    let name = format!("{} of {}", method.name(), service.name());
                    contract.methods.insert(name, method.clone());
                }
            }
        }
        contract
    }

    fn add(&mut self, within: &str, messages: &[DescriptorProto], enums: &[EnumDescriptorProto]) {
        for one in enums {
            self.enums.insert(format!("{within}{}", one.name()), one.clone());
        }
        for message in messages {
            let name = format!("{within}{}", message.name());
            self.add(&format!("{name}."), &message.nested_type, &message.enum_type);
            self.messages.insert(name, message.clone());
        }
    }
}
