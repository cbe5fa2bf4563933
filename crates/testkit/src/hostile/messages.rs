//! What programs and servers say to each other, read from any bytes.

use lodefs_proto::attach::{Ask, FromProgram};
use lodefs_proto::maps::{Census, DurableBy, File, FileId, Kind, Pages, Range};
use lodefs_proto::server::{Domain, FromServer, MESSAGE_MAX, Outcome, Part, Right};
use lodefs_proto::ticket::{self, TICKET_SIZE, Ticket};
use lodefs_proto::{Malformed, dax};
use zerocopy::{FromBytes, IntoBytes};

/// Takes the input for each kind of message in turn. What is understood is what was meant: sent again, it is the same bytes.
pub(super) fn parse(data: &[u8]) {
    if let Ok(message) = FromProgram::parse(data) {
        assert_eq!(message.raw().as_bytes(), data);
    }
    if let Ok(message) = FromServer::parse(data) {
        assert!(data.len() <= MESSAGE_MAX);
        assert_eq!(message.bytes(), data);
    }
    if let Ok(census) = Census::parse(data) {
        assert_eq!(census.bytes(), data);
        assert!(census.ranges.windows(2).all(|two| two[0].end <= two[1].start));
        assert!(census.ranges.iter().all(|range| (range.file as usize) < census.files.len()));
    }
    parse_dax(data);
    parse_ticket(data);
}

/// Longer than an input, so what is missing is zero.
fn parse_dax(data: &[u8]) {
    let mut bytes = [0; size_of::<dax::Message>()];
    let size = data.len().min(bytes.len());
    bytes[..size].copy_from_slice(&data[..size]);
    if let Ok(request) = dax::Request::parse(&bytes) {
        let again = dax::Request::parse(request.message().as_bytes());
        assert_eq!(again, Ok(request));
    }
    if let Ok(message) = dax::Message::read_from_bytes(&bytes)
        && let Ok(answer) = dax::Answer::parse(&message)
    {
        assert_eq!(dax::Answer::parse(&answer.message()), Ok(answer));
    }
}

fn parse_ticket(data: &[u8]) {
    let is_question = ticket::Message::check_question(data) == Ok(());
    let Ok(message) = ticket::Message::read_from_bytes(data) else { return assert!(!is_question) };
    match ticket::Answer::parse(&message) {
        Ok(answer) => {
            assert!(!is_question && !answer.name().is_empty());
            assert_eq!(ticket::Answer::parse(&answer.message()), Ok(answer));
        }
        Err(Malformed) => assert!(!is_question || message == ticket::Message::question()),
    }
}

/// One of each kind.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let file = 1;
    let asks = [
        Ask::Open { ticket: Ticket([3; TICKET_SIZE]) },
        Ask::Close { file },
        Ask::Map { file, offset: 4096, size: 8192, writable: true, sync: false },
        Ask::Lease { file, writable: true },
        Ask::Take { lease: 2, offset: 5, write: false },
        Ask::Reserve { lease: 2, offset: 5, end: 4096 },
        Ask::Return { lease: 2 },
        Ask::Changed { lease: 2 },
    ];
    let said = asks.map(|ask| FromProgram::Ask(7, ask)).into_iter().chain([
        FromProgram::Touch { lease: 2, offset: 4096, window: 4096, write: true },
        FromProgram::Answer { lease: 2, epoch: 1 },
    ]);
    let part = Part { offset: 0, size: 4096, at: Some(8192) };
    let parts = vec![part, Part { offset: 4096, at: None, ..part }];
    let answered = [
        FromServer::Outcome(
            7,
            Outcome::Opened { file, inode: 2, domain: Domain::MemoryController, host_sync: true },
        ),
        FromServer::Outcome(7, Outcome::Mapped { lease: 2, is_direct: true }),
        FromServer::Outcome(7, Outcome::Leased { lease: 2 }),
        FromServer::Outcome(7, Outcome::Refused(28)),
        FromServer::Data {
            number: 7,
            lease: 2,
            epoch: 1,
            size: 99,
            right: Right::Write,
            is_settled: true,
            parts: parts.clone(),
        },
        FromServer::Data {
            number: 8,
            lease: 2,
            epoch: 1,
            size: 8192,
            right: Right::Append { word: 64 },
            is_settled: false,
            parts: parts.clone(),
        },
        FromServer::Granted { lease: 2, epoch: 1, parts },
        FromServer::Nothing { lease: 2, epoch: 1, offset: 0, errno: 28 },
        FromServer::Recall { lease: 2, epoch: 2, offset: 0, end: 4096 },
    ];
    let requests = [dax::Request::Ask, dax::Request::Set { on: true, how: dax::How::Revoke }];
    said.map(|message| message.raw().as_bytes().to_vec())
        .chain(answered.map(|message| message.bytes()))
        .chain([census().bytes(), ticket::Message::question().as_bytes().to_vec()])
        // The rest of such a message is zero.
        .chain(requests.map(|request| request.message().as_bytes()[..32].to_vec()))
        .collect()
}

fn census() -> Census {
    let id = FileId::Host { device: 1, inode: 2 };
    let range = Range {
        start: 4096,
        end: 8192,
        offset: 0,
        file: 0,
        kind: Kind::Direct,
        writable: true,
        sync: true,
        serves_system_calls: true,
        durable_by: DurableBy::Flush,
        pages: Some(Pages { base: 4096, huge: 0 }),
    };
    let later = Range { start: 8192, end: 16384, offset: 4096, kind: Kind::Hole, pages: None, ..range };
    Census { files: vec![File { id, name: Some(b"/mnt/f".to_vec()) }], ranges: vec![range, later] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_understood() {
        let is_understood = |seed: &Vec<u8>| {
            FromProgram::parse(seed).is_ok()
                || FromServer::parse(seed).is_ok()
                || Census::parse(seed).is_ok()
                || ticket::Message::check_question(seed).is_ok()
        };
        let seeds = seeds();
        assert_eq!(seeds.iter().filter(|seed| is_understood(seed)).count(), seeds.len() - 2);
        for seed in &seeds {
            parse(seed);
        }
    }
}
