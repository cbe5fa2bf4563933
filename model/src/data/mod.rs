//! The protocol of data leases: programs that read, write and append to a direct file by themselves.
//!
//! One file of a few cells, each in a block of its own; programs of which one may be stopped or killed at any moment; and somebody who reads, writes, appends and cuts through
//! the mount. What a program does takes steps, between which anything else may happen:
//!
//! - A read looks whether its lease stands, loads, and looks again: what was loaded meanwhile counts only if nothing was taken back.
//! - A write has the program's lock while it stores, and a recall is answered with the lock.
//! - An append stores behind the end, where blocks are reserved, and then replaces the word that has the file's size, if it is what it was.
//!
//! The server settles the size, and marks the word, before anybody else uses the file.

mod state;
mod steps;

use stateright::{Model, Property};

use self::state::CELLS;
pub use self::state::{DataState, Doing, Owner, Program, Request, Right};

/// How the protocol is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// As it should be.
    #[default]
    Right,
    /// What was loaded counts, whatever was taken back meanwhile.
    LooksOnce,
    /// A recall is answered while the program still writes.
    AnswersAtOnce,
    /// A size is taken from the word without a mark that it is not to be replaced any more.
    NoMark,
    /// The word is replaced before the bytes are stored.
    WordFirst,
    /// A block is given away while a program may still reach it.
    EarlyReuse,
}

/// A protocol to be checked.
#[derive(Clone, Copy, Debug)]
pub struct DataProtocol {
    /// How it is followed.
    pub variant: Variant,
    /// Programs.
    pub programs: usize,
    /// How often somebody may write or append.
    pub writes: u8,
    /// How often the file may be cut.
    pub truncations: u8,
    /// How often a program may be stopped or killed.
    pub failures: u8,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Somebody wants something of the server.
    Request(Request),
    /// Nobody is in the way any more.
    Finish,
    /// A program begins to read,
    Look(usize),
    /// to write,
    Write(usize),
    /// or to append.
    Append(usize),
    /// It goes on with what it is doing.
    Proceed(usize),
    /// It answers a recall.
    Answer(usize),
    /// It is stopped,
    Stop(usize),
    /// goes on,
    Continue(usize),
    /// or is killed.
    Kill(usize),
    /// The server gives up on it.
    GiveUp(usize),
    /// Another file takes a free block.
    Reuse(usize),
}

impl Model for DataProtocol {
    type State = DataState;
    type Action = Action;

    fn init_states(&self) -> Vec<DataState> {
        vec![DataState::new(self)]
    }

    fn actions(&self, _: &DataState, actions: &mut Vec<Action>) {
        use Action::{Answer, Append, Continue, Finish, GiveUp, Kill, Look, Proceed, Reuse, Stop, Write};
        for number in 0..self.programs {
            let asks = [Right::Read, Right::Write].map(|right| Action::Request(Request::Ask(number, right)));
            actions.extend(asks);
            actions.extend([Look(number), Write(number), Append(number), Proceed(number), Answer(number)]);
            actions.extend([Stop(number), Continue(number), Kill(number), GiveUp(number)]);
        }
        actions
            .extend([Request::Read, Request::Write, Request::Append, Request::Truncate].map(Action::Request));
        actions.push(Finish);
        actions.extend((0..CELLS).map(Reuse));
    }

    fn next_state(&self, last: &DataState, action: Action) -> Option<DataState> {
        let mut state = last.clone();
        self.step(&mut state, action).map(|()| state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what was told is there", what_was_told_is_there),
            Property::always("nothing is read that was never there", |_: &Self, state: &DataState| {
                !state.was_misread
            }),
            Property::always("nobody else's block", nobody_elses_block),
            // So that nothing of this is true only because it never comes to it.
            Property::sometimes("appended by itself", |_: &Self, state: &DataState| {
                state.content().len() == CELLS
            }),
            Property::sometimes("a block is in quarantine", |_: &Self, state: &DataState| {
                state.owners.iter().any(|owner| matches!(owner, Owner::Quarantined(_)))
            }),
            Property::sometimes("an append was given up on", |_: &Self, state: &DataState| {
                state.programs.iter().any(|program| {
                    matches!(program.doing, Doing::HalfAppended(..))
                        && program.word.is_some_and(|(_, mark)| mark)
                })
            }),
            Property::sometimes("what was loaded does not count", |_: &Self, state: &DataState| {
                let is_late = |program: &Program| program.doing == Doing::Loaded(false, false);
                state.programs.iter().any(is_late)
            }),
        ]
    }
}

/// The file has what everybody was told, whenever nobody is in the midst of a change.
fn what_was_told_is_there(_: &DataProtocol, state: &DataState) -> bool {
    state.content() == state.told
}

/// A block is nobody else's as long as a program is about to store to it.
fn nobody_elses_block(_: &DataProtocol, state: &DataState) -> bool {
    state.programs.iter().all(|program| {
        let block = match program.doing {
            Doing::Writing => 0,
            Doing::Appending(end) | Doing::HalfAppended(end, _) => usize::from(end),
            Doing::Nothing | Doing::Looked(_) | Doing::Loaded(..) => return true,
        };
        matches!(state.owners[block], Owner::File | Owner::Quarantined(_))
    })
}
