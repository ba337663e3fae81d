//! What a watch has told of the objects of one kind. Pure.

use std::collections::BTreeMap;

use kube::{core::DynamicObject, runtime::watcher::Event};

#[cfg(test)]
mod tests;

/// Objects of one kind that are kept; as many as a fleet may have doors.
pub(crate) const OBJECTS_MAX: usize = 4_096;

/// A namespace and a name.
pub(crate) type Place = (String, String);

/// The objects of one kind, as far as they can be read.
#[derive(Debug)]
pub(crate) struct Mirror<T> {
    held: BTreeMap<Place, T>,
    /// A list under way: until it is whole, what was known stays.
    listing: Option<(BTreeMap<Place, T>, bool)>,
    complete: bool,
    /// Some did not fit.
    over: bool,
    read: fn(DynamicObject) -> Option<T>,
}

impl<T> Mirror<T> {
    pub(super) fn new(read: fn(DynamicObject) -> Option<T>) -> Self {
        Self { held: BTreeMap::new(), listing: None, complete: false, over: false, read }
    }

    /// All of them.
    pub(super) fn held(&self) -> &BTreeMap<Place, T> {
        &self.held
    }

    /// Whether everything was listed at least once, and nothing left out.
    pub(super) fn is_complete(&self) -> bool {
        self.complete && !self.over
    }

    /// Whether everything was listed at least once, but for what did not fit.
    pub(super) fn is_listed(&self) -> bool {
        self.complete
    }

    /// Whether there is room now for some of what did not fit: it must be listed anew.
    pub(super) fn has_room_again(&self) -> bool {
        self.over && self.held.len() < OBJECTS_MAX
    }

    /// Takes in what the watch tells.
    pub(super) fn take_in(&mut self, event: Event<DynamicObject>) {
        match event {
            Event::Init => self.listing = Some((BTreeMap::new(), false)),
            Event::InitApply(object) => {
                let (place, read) = (place(&object), (self.read)(object));
                let (listing, over) = self.listing.get_or_insert_default();
                *over |= put(listing, place, read);
            }
            Event::InitDone => {
                if let Some((listing, over)) = self.listing.take() {
                    (self.held, self.over, self.complete) = (listing, over, true);
                }
            }
            Event::Apply(object) => {
                let (place, read) = (place(&object), (self.read)(object));
                self.over |= put(&mut self.held, place, read);
            }
            Event::Delete(object) => {
                if let Some(place) = place(&object) {
                    self.held.remove(&place);
                }
            }
        }
    }
}

fn place(object: &DynamicObject) -> Option<Place> {
    Some((object.metadata.namespace.clone()?, object.metadata.name.clone()?))
}

/// Says whether there was no room.
fn put<T>(held: &mut BTreeMap<Place, T>, place: Option<Place>, read: Option<T>) -> bool {
    match (place, read) {
        (Some(place), Some(read)) => {
            let full = held.len() >= OBJECTS_MAX && !held.contains_key(&place);
            if !full {
                held.insert(place, read);
            }
            full
        }
        (Some(place), None) => {
            held.remove(&place);
            false
        }
        (None, _) => false,
    }
}
