//! Doors from a `knockd.conf`, the configuration file of knockd (manual page knockd(1), section CONFIGURATION).
//!
//! knockd runs a command of the operator's; a door opens ports. So the ports are looked for in the command, in the ways
//! in which iptables, nft, ufw, firewall-cmd and knockd's own helper name them. What a door cannot say becomes a note.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    door::{
        Door, DoorName, DoorParts, Knock, OPEN_FOR_MAX, Opens, SHORTEST, STEPS_MAX, Sequence, Step,
        WITHIN_MAX,
    },
    host::{HostSelector, Labels},
    port::{Port, Protocol},
};

mod command;
mod sections;
#[cfg(test)]
mod tests;

use command::{Action, Command};
use sections::{Section, Setting};

/// The longest text in bytes.
pub const TEXT_MAX: usize = 1024 * 1024;
/// Sections in one text.
pub const SECTIONS_MAX: usize = 1_000;
/// knockd's `Seq_Timeout` when none is given.
const SEQUENCE_TIMEOUT: Duration = Duration::from_secs(25);
/// knockd's `Cmd_Timeout` when none is given.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// What the file cannot say.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// The hosts that have this knockd: where steps count and where doors open. By default every host of the fleet.
    pub hosts: HostSelector,
    /// What a door opens whose command does not show it. By default such a door is left out.
    pub default_port: Option<Port>,
    /// How long a door is open that knockd would leave open until another knock closes it. By default 30 s.
    pub open_for: Duration,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { hosts: HostSelector::default(), default_port: None, open_for: Duration::from_secs(30) }
    }
}

/// What came of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// In the order of the file.
    pub doors: Vec<Door>,
    /// What was left out or changed, in the order of the file.
    pub notes: Vec<Note>,
}

/// Something that was left out or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: [{section}]: {text}")]
pub struct Note {
    /// As the file writes it.
    pub section: String,
    /// Counted from 1.
    pub line: usize,
    /// What, why, and what to do about it. Spells out no step.
    pub text: String,
}

/// Why nothing could be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// No section has a sequence.
    #[error("this is not a knockd.conf: no section has a 'sequence' or 'one_time_sequences'")]
    NoSequence,
    /// A line that is neither a section, a setting nor a comment.
    #[error("{line}: this is not a knockd.conf: the line is neither a [section], a setting nor a comment")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// Beyond [`TEXT_MAX`] or [`SECTIONS_MAX`].
    #[error("the file is too large: at most {TEXT_MAX} bytes and {SECTIONS_MAX} sections are read")]
    TooLarge,
}

/// Turns each section that opens something into a door.
///
/// # Errors
/// When the text is no `knockd.conf` or is too large.
pub fn import(text: &str, options: &ImportOptions) -> Result<Import, ImportError> {
    let sections = sections::read(text)?;
    let has_sequence = |section: &Section<'_>| {
        section.setting("sequence").is_some() || section.setting("one_time_sequences").is_some()
    };
    if !sections.iter().any(has_sequence) {
        return Err(ImportError::NoSequence);
    }
    let mut importer = Importer { options, import: Import::default(), names: BTreeMap::new() };
    for section in &sections {
        if section.name.eq_ignore_ascii_case("options") {
            importer.options_section(section);
        } else {
            importer.door_section(section, &sections);
        }
    }
    Ok(importer.import)
}

struct Importer<'a> {
    options: &'a ImportOptions,
    import: Import,
    /// Door names that are taken, with the sections that took them.
    names: BTreeMap<DoorName, String>,
}

impl Importer<'_> {
    fn note(&mut self, section: &Section<'_>, line: usize, text: impl Into<String>) {
        self.import.notes.push(Note { section: printable(section.name), line, text: text.into() });
    }

    fn options_section(&mut self, section: &Section<'_>) {
        for setting in &section.settings {
            let why = match setting.key.as_str() {
                "interface" => "agents listen on every interface; choose hosts in the doors instead",
                "usesyslog" | "logfile" => "agents and controllers write their log to standard error",
                "pidfile" => "agents need no such file",
                _ => "Fleetknock has nothing like it",
            };
            self.note(section, setting.line, format!("'{}' was left out: {why}", printable(&setting.key)));
        }
    }

    fn door_section(&mut self, section: &Section<'_>, all: &[Section<'_>]) {
        if let Some(setting) = section.setting("one_time_sequences")
            && section.setting("sequence").is_none()
        {
            let text = "left out: 'one_time_sequences' cannot be carried over; this version knows fixed sequences only";
            return self.note(section, setting.line, text);
        }
        let Some(sequence) = section.setting("sequence") else {
            return self.note(section, section.line, "left out: it has no 'sequence'");
        };
        let start = section.setting("start_command").or_else(|| section.setting("command"));
        let Some(start) = start else {
            return self.note(section, section.line, "left out: it has no 'command', so it opens nothing");
        };
        let command = command::read(start.value);
        if command.action == Action::Close {
            return self.closing_section(section, &command, all);
        }
        let Some(door) = self.door(section, sequence, start, &command) else {
            return;
        };
        self.leftovers(section, &command);
        self.names.insert(door.name().clone(), section.name.to_owned());
        self.import.doors.push(door);
    }

    /// A section that deletes a rule: the other half of one that adds it.
    fn closing_section(&mut self, section: &Section<'_>, command: &Command, all: &[Section<'_>]) {
        let opener = all.iter().find(|other| {
            let start = other.setting("start_command").or_else(|| other.setting("command"));
            let opened = start.map(|start| command::read(start.value));
            opened.is_some_and(|opened| opened.action != Action::Close && opened.ports == command.ports)
        });
        let of = match opener {
            Some(opener) => format!("it closes what [{}] opens", printable(opener.name)),
            None => "it closes something that no other section opens".to_owned(),
        };
        let text =
            format!("left out: {of}; openings end by themselves, and 'fleetknock close' ends one sooner");
        self.note(section, section.line, text);
    }

    fn door(
        &mut self,
        section: &Section<'_>,
        sequence: &Setting<'_>,
        start: &Setting<'_>,
        command: &Command,
    ) -> Option<Door> {
        let steps = match read_sequence(sequence.value) {
            Ok(ports) => {
                ports.into_iter().map(|port| Step { hosts: self.options.hosts.clone(), port }).collect()
            }
            Err(why) => {
                self.note(section, sequence.line, format!("left out: {why}"));
                return None;
            }
        };
        let mut ports = command.ports.clone();
        if ports.is_empty() {
            let Some(port) = self.options.default_port else {
                let text = "left out: its command does not show which port it opens; say which to use for such sections";
                self.note(section, start.line, text);
                return None;
            };
            self.note(
                section,
                start.line,
                format!("its command does not show which port it opens; {port} was taken"),
            );
            ports.insert(port);
        } else if command.guessed_protocol {
            let listed: Vec<_> = ports.iter().map(ToString::to_string).collect();
            let text = format!("its command names no protocol for its port; {} was taken", listed.join(", "));
            self.note(section, start.line, text);
        }
        let within = self.within(section);
        let duration = self.open_for(section);
        let name = self.name(section)?;
        let parts = DoorParts {
            name,
            labels: Labels::default(),
            knock: Knock::Sequence(Sequence { steps, within }),
            sources: Vec::new(),
            opens: Opens { hosts: self.options.hosts.clone(), ports, duration },
            mode: Default::default(),
        };
        match Door::new(parts) {
            Ok(door) => Some(door),
            Err(error) => {
                self.note(section, section.line, format!("left out: {}", error.reason));
                None
            }
        }
    }

    fn within(&mut self, section: &Section<'_>) -> Duration {
        let setting = section.setting("seq_timeout").or_else(|| section.setting("timeout"));
        let Some(setting) = setting else {
            return SEQUENCE_TIMEOUT;
        };
        self.seconds(section, setting, SEQUENCE_TIMEOUT, WITHIN_MAX)
    }

    fn open_for(&mut self, section: &Section<'_>) -> Duration {
        let stop = section.setting("stop_command").or_else(|| section.setting("stop_command_6"));
        match (stop, section.setting("cmd_timeout")) {
            (Some(_), Some(setting)) => self.seconds(section, setting, COMMAND_TIMEOUT, OPEN_FOR_MAX),
            (Some(_), None) => COMMAND_TIMEOUT,
            (None, _) => {
                let open_for = humantime::format_duration(self.options.open_for).to_string().replace(' ', "");
                let text = format!(
                    "knockd leaves this open until something closes it; the door closes after {open_for}, and \
                     established connections live on"
                );
                self.note(section, section.line, text);
                self.options.open_for
            }
        }
    }

    /// A number of seconds, brought within the bounds of a door.
    fn seconds(
        &mut self,
        section: &Section<'_>,
        setting: &Setting<'_>,
        usual: Duration,
        most: Duration,
    ) -> Duration {
        let Ok(seconds) = setting.value.parse::<u64>() else {
            let text = format!(
                "'{}' is not a number of seconds; {} s was taken",
                printable(&setting.key),
                usual.as_secs()
            );
            self.note(section, setting.line, text);
            return usual;
        };
        let wanted = Duration::from_secs(seconds);
        let kept = wanted.clamp(SHORTEST, most);
        if kept != wanted {
            let text = format!(
                "'{} = {seconds}' was changed to {} s: a door takes {} to {} s",
                printable(&setting.key),
                kept.as_secs(),
                SHORTEST.as_secs(),
                most.as_secs()
            );
            self.note(section, setting.line, text);
        }
        kept
    }

    /// The section's name in the form of a door's, not taken by another section.
    fn name(&mut self, section: &Section<'_>) -> Option<DoorName> {
        let form = |c: char| {
            if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }
        };
        let plain: String = section.name.chars().take(200).map(form).collect();
        let plain = plain.trim_matches('-');
        let plain = if plain.is_empty() { "door" } else { plain };
        let numbered = (2..=SECTIONS_MAX + 1).map(|number| format!("{plain}-{number}"));
        let name = std::iter::once(plain.to_owned())
            .chain(numbered)
            .filter_map(|name| name.parse::<DoorName>().ok())
            .find(|name| !self.names.contains_key(name))?;
        if name.as_str() != section.name {
            self.note(section, section.line, format!("the door is named '{name}'"));
        }
        Some(name)
    }

    /// Says what of a carried-over section does not work as before.
    fn leftovers(&mut self, section: &Section<'_>, command: &Command) {
        if !command.names_source {
            let line =
                section.setting("command").or_else(|| section.setting("start_command")).map_or(0, |s| s.line);
            let text = "its command opens for everybody; the door opens for the source that knocked only";
            self.note(section, line, text);
        }
        for setting in &section.settings {
            let key = printable(&setting.key);
            let text = match setting.key.as_str() {
                "sequence" | "command" | "start_command" | "seq_timeout" | "timeout" | "cmd_timeout"
                | "stop_command" => continue,
                // Sources of both families knock at one door.
                "command_6" | "start_command_6" | "stop_command_6" => continue,
                "tcpflags" if setting.value.eq_ignore_ascii_case("syn") => continue,
                "tcpflags" => {
                    "'tcpflags' was left out: a knock is a SYN without ACK; clients that send other flags no longer work"
                        .to_owned()
                }
                "target" => "'target' was left out: a knock counts at any address of its host; install an agent on the \
                             target, or name hosts in the door"
                    .to_owned(),
                "one_time_sequences" => {
                    "'one_time_sequences' was left out, its 'sequence' was taken; this version knows fixed sequences only"
                        .to_owned()
                }
                "interface" => "'interface' was left out: agents listen on every interface".to_owned(),
                _ => format!("'{key}' was left out: Fleetknock has nothing like it"),
            };
            self.note(section, setting.line, text);
        }
        if command.several {
            let text = "its command does more than opening a port; a door runs no command";
            self.note(section, section.line, text);
        }
    }
}

/// Such as `7000,8000:udp,9000`. Errors spell out nothing.
fn read_sequence(text: &str) -> Result<Vec<Port>, String> {
    let mut ports = Vec::new();
    for (index, part) in text.split(',').enumerate() {
        if index == STEPS_MAX {
            return Err(format!("its sequence has more than {STEPS_MAX} steps"));
        }
        let (number, protocol) = part.split_once(':').unwrap_or((part, "tcp"));
        let protocol = match protocol.trim().to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => {
                return Err(format!("step {} of its sequence is neither tcp nor udp", index + 1));
            }
        };
        let number = number.trim().parse().ok();
        let port = number.and_then(|number| Port::new(protocol, number).ok());
        ports.push(
            port.ok_or_else(|| format!("step {} of its sequence is not a port from 1 to 65535", index + 1))?,
        );
    }
    Ok(ports)
}

/// For messages: of bounded length, and unable to steer a terminal.
fn printable(text: &str) -> String {
    text.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect()
}
