//! The sections and settings of a `knockd.conf`, as knockd reads them: keys in any case, comments on lines of their own
//! that begin with `#`, the last of two equal settings counts.

use super::{ImportError, SECTIONS_MAX, TEXT_MAX};

/// A `[name]` and what follows it.
#[derive(Debug)]
pub(super) struct Section<'a> {
    pub(super) name: &'a str,
    pub(super) line: usize,
    pub(super) settings: Vec<Setting<'a>>,
}

/// One `key = value`.
#[derive(Debug)]
pub(super) struct Setting<'a> {
    /// In lower case.
    pub(super) key: String,
    pub(super) value: &'a str,
    pub(super) line: usize,
}

impl<'a> Section<'a> {
    pub(super) fn setting(&self, key: &str) -> Option<&Setting<'a>> {
        self.settings.iter().rev().find(|setting| setting.key == key)
    }
}

/// Splits a text into its sections.
pub(super) fn read(text: &str) -> Result<Vec<Section<'_>>, ImportError> {
    if text.len() > TEXT_MAX {
        return Err(ImportError::TooLarge);
    }
    let mut sections: Vec<Section<'_>> = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let line = index + 1;
        let content = raw.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = content.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            if sections.len() == SECTIONS_MAX {
                return Err(ImportError::TooLarge);
            }
            sections.push(Section { name: name.trim(), line, settings: Vec::new() });
            continue;
        }
        let section = sections.last_mut().ok_or(ImportError::Line { line })?;
        let (key, value) = content.split_once('=').unwrap_or((content, ""));
        let key = key.trim();
        // The one setting without a value is UseSyslog; a longer line without '=' belongs to some other kind of file.
        let plain =
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !plain {
            return Err(ImportError::Line { line });
        }
        section.settings.push(Setting { key: key.to_ascii_lowercase(), value: value.trim(), line });
    }
    Ok(sections)
}
