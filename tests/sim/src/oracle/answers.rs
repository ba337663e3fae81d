//! Whether an opening answers a complete right knock, and each knock only once.

use fleetknock_controller::record::{OpeningRecord, Packet};
use fleetknock_core::{
    door::{Door, DoorName, Knock},
    host::Labels,
    source::Source,
    time::Timestamp,
};

use super::{ANSWER_MAX, Captured, STAMP, true_time};
use crate::{
    core::Core,
    time::{Micros, micros},
};

impl Core {
    pub(super) fn answered_knock(
        &mut self,
        record: &OpeningRecord,
        at: Timestamp,
        ahead: i64,
        end: Option<&Packet>,
    ) {
        let knocked = true_time(at, ahead);
        let (source, door) = (record.source, record.door.clone());
        let uncertainty = self.oracle.uncertainty(source);
        let apart = 2 * uncertainty + STAMP + 2 * self.scenario.skew;
        let Some(place) = self.last_packet(&record.door, source, knocked, apart, end) else {
            return self.fail(format!("{door} opens for {source} without its last knock at {knocked}"));
        };
        let last = self.oracle.captured[place].at;
        if !self.is_complete(&door, place, uncertainty) {
            return self.fail(format!("{door} opens for {source} without a complete knock"));
        }
        if !self.oracle.answers.insert((door.clone(), place)) {
            return self.fail(format!("the knock of {source} at {door} is answered twice"));
        }
        let late = self.now.saturating_sub(last);
        if late > ANSWER_MAX + apart {
            return self.fail(format!("{door} opens for {source} {late} us after its last packet"));
        }
        let withdrawn = self.oracle.withdrawn.get(&(door.clone(), source));
        if withdrawn.is_some_and(|withdrawn| *withdrawn > last + apart) {
            return self.fail(format!("an old knock of {source} brings back what was closed at {door}"));
        }
        self.granted(&door, source, last);
    }

    /// The captured packet that can be the last of a door's knock at about that time: the one that is meant, or, when
    /// the run of its agent was forgotten, the nearest.
    fn last_packet(
        &self,
        door: &DoorName,
        source: Source,
        at: Micros,
        apart: Micros,
        end: Option<&Packet>,
    ) -> Option<usize> {
        let source = self.scenario.sources.iter().position(|known| *known == source)?;
        let Knock::Sequence(sequence) = self.door(door)?.knock();
        let port = sequence.steps.last()?.port;
        let fits = |captured: &Captured| {
            captured.source == source
                && captured.port == port
                && captured.at.abs_diff(at) <= apart
                && end.is_none_or(|end| self.is_packet(captured, end))
        };
        let captured = self.oracle.captured.iter().enumerate().filter(|(_, captured)| fits(captured));
        captured.min_by_key(|(_, captured)| captured.at.abs_diff(at)).map(|(place, _)| place)
    }

    fn is_packet(&self, captured: &Captured, packet: &Packet) -> bool {
        let (host, _) = &self.scenario.hosts[captured.host];
        (host, captured.boot, captured.counter) == (&packet.host, packet.boot, packet.counter)
    }

    fn door(&self, name: &DoorName) -> Option<&Door> {
        self.scenario.doors.iter().find(|door| door.name() == name)
    }

    /// Whether captured packets of the source make the whole sequence with this one, as far as clocks can tell.
    fn is_complete(&self, door: &DoorName, last: usize, uncertainty: Micros) -> bool {
        let Some(door) = self.door(door) else { return false };
        let Knock::Sequence(sequence) = door.knock();
        let last = self.oracle.captured[last];
        let slack = 2 * uncertainty + STAMP + 2 * self.scenario.skew;
        let least = last.at.saturating_sub(micros(sequence.within) + slack);
        // From the last step backwards: the latest packet that fits is the best choice.
        let mut before = last.at + slack;
        for step in sequence.steps.iter().rev() {
            let fits = self.oracle.captured.iter().filter(|captured| {
                let (host, _) = &self.scenario.hosts[captured.host];
                captured.source == last.source
                    && captured.port == step.port
                    && captured.at <= before
                    && captured.at >= least
                    && step.hosts.matches(host, &Labels::default())
            });
            let Some(at) = fits.map(|captured| captured.at).max() else { return false };
            before = at + slack;
        }
        true
    }
}
