//! From a tree of YAML to a checked door.

use std::{collections::BTreeSet, fmt::Display, str::FromStr, time::Duration};

use ipnet::IpNet;

use super::{
    API_VERSION, Document, KIND, YamlError,
    tree::{Key, Node, Position, Value},
};
use crate::{
    door::{Door, DoorName, DoorParts, Knock, Opens, Sequence, Step},
    host::{HostSelector, Labels},
    network,
    port::Port,
};

/// Knocks that the design names and this version does not know.
const LATER_KNOCKS: [&str; 3] = ["rotating", "spa", "fwknop"];

/// Reads one document.
pub(super) fn document(root: &Node) -> Result<Document, YamlError> {
    let mut places = Places::default();
    // What a controller reports about a door; reading back what `get` wrote must work, so it is passed over.
    let fields = Fields::new(root, "", &["apiVersion", "kind", "metadata", "spec", "status"])?;
    fixed(fields.required("apiVersion")?, "apiVersion", API_VERSION)?;
    fixed(fields.required("kind")?, "kind", KIND)?;

    let metadata = Fields::new(fields.required("metadata")?, "metadata", &["name", "labels"])?;
    let name: DoorName = parsed(metadata.required("name")?, "metadata.name")?;
    let labels = metadata.optional("labels").map(|node| labels(node, "metadata.labels")).transpose()?;

    let spec = Fields::new(fields.required("spec")?, "spec", &["mode", "knock", "sources", "opens"])?;
    places.note("spec", spec.at);
    let knock = spec.required("knock")?;
    places.note("spec.knock", knock.at);
    let knock = read_knock(knock, &mut places)?;
    let sources = match spec.optional("sources") {
        None => Vec::new(),
        Some(node) => {
            places.note("spec.sources", node.at);
            list(node, "spec.sources")?
                .map(|(path, item)| read_network(item, &path))
                .collect::<Result<_, _>>()?
        }
    };
    let opens = read_opens(spec.required("opens")?, &mut places)?;
    let mode = spec.optional("mode").map(|node| parsed(node, "spec.mode")).transpose()?.unwrap_or_default();

    let parts = DoorParts { name, labels: labels.unwrap_or_default(), knock, sources, opens, mode };
    let door = Door::new(parts)
        .map_err(|error| YamlError::new(places.nearest(&error.field, root.at), &error.field, error.reason))?;
    Ok(Document { door, line: root.at.line })
}

fn read_knock(node: &Node, places: &mut Places) -> Result<Knock, YamlError> {
    let path = "spec.knock";
    if let Value::Map(entries) = &node.value
        && let Some((key, _)) = entries.iter().find(|(key, _)| LATER_KNOCKS.contains(&key.name.as_str()))
    {
        let reason = format!("a '{}' knock is not supported by this version; use 'sequence'", key.name);
        return Err(YamlError::new(key.at, path, reason));
    }
    let fields = Fields::new(node, path, &["sequence", "within"])?;
    let steps = fields.required("sequence")?;
    places.note("spec.knock.sequence", steps.at);
    let steps = list(steps, "spec.knock.sequence")?
        .map(|(path, item)| {
            let fields = Fields::new(item, &path, &["hosts", "port"])?;
            let hosts = match fields.optional("hosts") {
                Some(hosts) => selector(hosts, &format!("{path}.hosts"))?,
                None => HostSelector::default(),
            };
            let port: Port = parsed(fields.required("port")?, &format!("{path}.port"))?;
            Ok(Step { hosts, port })
        })
        .collect::<Result<_, YamlError>>()?;
    let within = fields.required("within")?;
    places.note("spec.knock.within", within.at);
    let within = duration(within, "spec.knock.within")?;
    Ok(Knock::Sequence(Sequence { steps, within }))
}

fn read_opens(node: &Node, places: &mut Places) -> Result<Opens, YamlError> {
    let fields = Fields::new(node, "spec.opens", &["hosts", "ports", "for"])?;
    // Left out by mistake, it would close these ports on the whole fleet.
    let Some(hosts) = fields.optional("hosts") else {
        let reason =
            "the field 'hosts' is missing; name hosts or labels, or write 'hosts: {}' for every host";
        return Err(YamlError::new(fields.at, "spec.opens", reason.to_owned()));
    };
    let hosts = selector(hosts, "spec.opens.hosts")?;
    let ports_node = fields.required("ports")?;
    places.note("spec.opens.ports", ports_node.at);
    let mut ports = BTreeSet::new();
    for (path, item) in list(ports_node, "spec.opens.ports")? {
        let port: Port = parsed(item, &path)?;
        if !ports.insert(port) {
            return Err(YamlError::new(item.at, &path, format!("{port} is listed twice; keep one of them")));
        }
    }
    let open_for = fields.required("for")?;
    places.note("spec.opens.for", open_for.at);
    let duration = duration(open_for, "spec.opens.for")?;
    Ok(Opens { hosts, ports, duration })
}

fn selector(node: &Node, path: &str) -> Result<HostSelector, YamlError> {
    let fields = Fields::new(node, path, &["matchLabels", "names"])?;
    let match_labels = match fields.optional("matchLabels") {
        Some(node) => labels(node, &format!("{path}.matchLabels"))?,
        None => Labels::default(),
    };
    let names = match fields.optional("names") {
        // An empty list reads as "no host" and would mean "every host".
        Some(Node { at, value: Value::List(items) }) if items.is_empty() => {
            let reason = "the list is empty; name a host, or leave 'names' out for any name".to_owned();
            return Err(YamlError::new(*at, &format!("{path}.names"), reason));
        }
        Some(node) => list(node, &format!("{path}.names"))?
            .map(|(path, item)| parsed(item, &path))
            .collect::<Result<_, _>>()?,
        None => BTreeSet::new(),
    };
    Ok(HostSelector { match_labels, names })
}

fn labels(node: &Node, path: &str) -> Result<Labels, YamlError> {
    let Value::Map(entries) = &node.value else {
        return Err(wrong_type(node, path, "a map of labels such as {role: edge}"));
    };
    let pairs = entries
        .iter()
        .map(|(key, value)| Ok((key.name.clone(), text(value, path)?.to_owned())))
        .collect::<Result<Vec<_>, YamlError>>()?;
    Labels::new(pairs).map_err(|error| YamlError::new(node.at, path, error.to_string()))
}

fn read_network(node: &Node, path: &str) -> Result<IpNet, YamlError> {
    network::parse(text(node, path)?).map_err(|error| YamlError::new(node.at, path, error.to_string()))
}

fn duration(node: &Node, path: &str) -> Result<Duration, YamlError> {
    let wrong = |reason: String| YamlError::new(node.at, path, reason);
    if matches!(node.value, Value::Number) {
        return Err(wrong("a time needs its unit; write it like 15s or 1m30s".to_owned()));
    }
    let text = text(node, path)?;
    let duration = humantime::parse_duration(text)
        .map_err(|_| wrong(format!("'{text}' is not a time; write it like 15s or 1m30s")))?;
    if duration.subsec_nanos() % 1_000_000 != 0 {
        return Err(wrong(format!("'{text}' is finer than a millisecond; write it like 15s or 1500ms")));
    }
    Ok(duration)
}

fn fixed(node: &Node, path: &str, wanted: &str) -> Result<(), YamlError> {
    let found = text(node, path)?;
    if found == wanted {
        return Ok(());
    }
    Err(YamlError::new(node.at, path, format!("must be '{wanted}', not '{found}'")))
}

fn parsed<T: FromStr<Err: Display>>(node: &Node, path: &str) -> Result<T, YamlError> {
    text(node, path)?.parse().map_err(|error: T::Err| YamlError::new(node.at, path, error.to_string()))
}

fn text<'a>(node: &'a Node, path: &str) -> Result<&'a str, YamlError> {
    let port = path.ends_with(".port") || path.contains("ports[");
    match &node.value {
        Value::Text(text) => Ok(text),
        _ if port => Err(wrong_type(node, path, "a port such as tcp/22")),
        // Such as the label value 1 or true.
        Value::Number | Value::Boolean => Err(wrong_type(node, path, "text in quotes")),
        _ => Err(wrong_type(node, path, "text")),
    }
}

/// The items of a list with their paths.
fn list<'a>(
    node: &'a Node,
    path: &str,
) -> Result<impl Iterator<Item = (String, &'a Node)> + use<'a>, YamlError> {
    let Value::List(items) = &node.value else {
        return Err(wrong_type(node, path, "a list"));
    };
    let path = path.to_owned();
    Ok(items.iter().enumerate().map(move |(index, item)| (format!("{path}[{index}]"), item)))
}

fn wrong_type(node: &Node, path: &str, wanted: &str) -> YamlError {
    YamlError::new(node.at, path, format!("must be {wanted}, not {}", node.value.kind()))
}

/// A map whose keys are all known.
struct Fields<'a> {
    at: Position,
    path: String,
    entries: &'a [(Key, Node)],
}

impl<'a> Fields<'a> {
    fn new(node: &'a Node, path: &str, known: &[&str]) -> Result<Self, YamlError> {
        let Value::Map(entries) = &node.value else {
            let wanted = format!("a map of {}", known.join(", "));
            return Err(wrong_type(node, path, &wanted));
        };
        if let Some((key, _)) = entries.iter().find(|(key, _)| !known.contains(&key.name.as_str())) {
            return Err(unknown(key, path, known));
        }
        Ok(Self { at: node.at, path: path.to_owned(), entries })
    }

    /// A field that may be missing; one without a value counts as missing.
    fn optional(&self, name: &str) -> Option<&'a Node> {
        let (_, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        (!matches!(node.value, Value::Nothing)).then_some(node)
    }

    fn required(&self, name: &str) -> Result<&'a Node, YamlError> {
        self.optional(name).ok_or_else(|| {
            let at = self.entries.iter().find(|(key, _)| key.name == name).map_or(self.at, |(key, _)| key.at);
            YamlError::new(at, &self.path, format!("the field '{name}' is missing or empty"))
        })
    }
}

fn unknown(key: &Key, path: &str, known: &[&str]) -> YamlError {
    let place = if path.is_empty() { "a door".to_owned() } else { path.to_owned() };
    // A key that does not look like a field's name may be a misplaced secret.
    let plain =
        key.name.len() <= 40 && key.name.bytes().all(|b| b.is_ascii_alphabetic() || matches!(b, b'-' | b'_'));
    if !plain || key.name.is_empty() {
        let reason = format!("unknown field in {place}; known are {}", known.join(", "));
        return YamlError::new(key.at, "", reason);
    }
    let nearest = known
        .iter()
        .map(|candidate| {
            (strsim::damerau_levenshtein(&key.name.to_lowercase(), &candidate.to_lowercase()), candidate)
        })
        .min()
        .filter(|(distance, candidate)| *distance <= 2.max(candidate.len() / 3));
    let remedy = match nearest {
        Some((_, candidate)) => format!("did you mean '{candidate}'?"),
        None => format!("known are {}", known.join(", ")),
    };
    YamlError::new(key.at, "", format!("unknown field '{}' in {place}; {remedy}", key.name))
}

/// Where fields stand, for bounds that are checked after reading.
#[derive(Default)]
struct Places(Vec<(&'static str, Position)>);

impl Places {
    fn note(&mut self, path: &'static str, at: Position) {
        self.0.push((path, at));
    }

    /// Of the field, or of the closest thing around it that was read.
    fn nearest(&self, field: &str, root: Position) -> Position {
        let around = self.0.iter().filter(|(path, _)| field.starts_with(path));
        around.max_by_key(|(path, _)| path.len()).map_or(root, |(_, at)| *at)
    }
}
