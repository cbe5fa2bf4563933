//! What the server and the programs do, a step at a time.

use super::state::{DataState, Doing, FOREIGN, Owner, Request, Right};
use super::{Action, DataProtocol, Variant};

impl DataProtocol {
    /// Asks those for what they have who are in the way of a request.
    fn request(&self, state: &mut DataState, request: Request) -> Option<()> {
        if state.request.is_some() {
            return None;
        }
        let (asking, exclusive) = match request {
            Request::Ask(number, right) => {
                let program = &state.programs[number];
                let is_able = !program.is_dead && !program.is_stopped && program.doing == Doing::Nothing;
                // Whoever was given up on gets nothing more until he has answered.
                (is_able && program.right < right && state.excused & 1 << number == 0).then_some(())?;
                (Some(number), right == Right::Write)
            }
            Request::Read => (None, false),
            Request::Write | Request::Append => {
                (state.left[0] > 0).then_some(())?;
                (None, true)
            }
            Request::Truncate => {
                state.spend(1)?;
                (None, true)
            }
        };
        state.request = Some(request);
        for (number, right) in state.rights.iter().enumerate() {
            let is_in_the_way = *right == Right::Write || exclusive && *right == Right::Read;
            if is_in_the_way && asking != Some(number) {
                state.awaited |= 1 << number;
            }
        }
        if state.awaited & !state.excused == 0 { self.finish(state) } else { Some(()) }
    }

    fn finish(&self, state: &mut DataState) -> Option<()> {
        if state.awaited & !state.excused != 0 {
            return None;
        }
        let request = state.request.take()?;
        match request {
            Request::Ask(number, right) => {
                if state.tail != Some(number) {
                    state.settle(self.variant);
                }
                if state.programs[number].is_dead {
                    return Some(());
                }
                // Nobody else may write who was not given up on; whoever was may still do it.
                state.rights[number] = right;
                state.programs[number].right = right;
                if right == Right::Write {
                    state.reserve(number);
                }
            }
            Request::Read => {
                state.settle(self.variant);
                state.was_misread |= state.content() != state.told;
            }
            Request::Write => {
                state.settle(self.variant);
                if state.size > 0 {
                    let value = state.spend(0)?;
                    (state.medium[0], state.told[0]) = (value, value);
                }
            }
            Request::Append => {
                state.settle(self.variant);
                let end = usize::from(state.size);
                if state.owners.get(end) == Some(&Owner::Free) {
                    let value = state.spend(0)?;
                    state.owners[end] = Owner::File;
                    state.medium[end] = value;
                    state.told.push(value);
                    state.size += 1;
                }
            }
            Request::Truncate => {
                state.settle(self.variant);
                state.cut(0, self.variant);
                state.told.clear();
            }
        }
        Some(())
    }

    fn proceed(&self, state: &mut DataState, number: usize) -> Option<()> {
        let program = state.programs[number].clone();
        let next = match program.doing {
            Doing::Nothing => return None,
            Doing::Looked(stands) => {
                // Whoever was given up on reads what was there when he was, but nobody else's.
                let was_given_up = state.excused & 1 << number != 0;
                let is_right = if was_given_up {
                    state.medium[0] != FOREIGN
                } else {
                    state.told.first() == Some(&state.medium[0])
                };
                Doing::Loaded(stands, is_right)
            }
            Doing::Loaded(stands, is_right) => {
                let counts = stands || self.variant == Variant::LooksOnce;
                state.was_misread |= counts && !is_right;
                Doing::Nothing
            }
            Doing::Writing => {
                let value = state.spend(0)?;
                state.medium[0] = value;
                if let (Some(told), Owner::File) = (state.told.first_mut(), state.owners[0]) {
                    // Also of whoever was given up on: as long as the block is the file's, he has written to the file.
                    *told = value;
                }
                Doing::Nothing
            }
            Doing::Appending(end) => {
                let value = state.spend(0)?;
                if self.variant == Variant::WordFirst {
                    state.replace(number, end, value);
                } else {
                    state.medium[usize::from(end)] = value;
                }
                Doing::HalfAppended(end, value)
            }
            Doing::HalfAppended(end, value) => {
                if self.variant == Variant::WordFirst {
                    state.medium[usize::from(end)] = value;
                } else {
                    state.replace(number, end, value);
                }
                Doing::Nothing
            }
        };
        state.programs[number].doing = next;
        Some(())
    }

    fn answer(&self, state: &mut DataState, number: usize) -> Option<()> {
        (state.awaited & 1 << number != 0).then_some(())?;
        let has_lock =
            !matches!(state.programs[number].doing, Doing::Nothing | Doing::Looked(_) | Doing::Loaded(..));
        if has_lock && self.variant != Variant::AnswersAtOnce {
            return None;
        }
        let was_given_up = state.excused & 1 << number != 0;
        let program = &mut state.programs[number];
        program.right = Right::None;
        program.doing = match program.doing {
            Doing::Looked(_) => Doing::Looked(false),
            Doing::Loaded(_, is_right) => Doing::Loaded(false, is_right),
            other => other,
        };
        if was_given_up && state.tail != Some(number) {
            program.word = None;
        }
        state.is_rid(number);
        Some(())
    }

    pub(super) fn step(&self, state: &mut DataState, action: Action) -> Option<()> {
        let running = |number: usize| {
            let program = &state.programs[number];
            (!program.is_dead && !program.is_stopped).then_some(())
        };
        match action {
            Action::Request(request) => self.request(state, request),
            Action::Finish => self.finish(state),
            Action::Look(number) | Action::Write(number) | Action::Append(number) => {
                running(number)?;
                state.begin(action, number)
            }
            Action::Proceed(number) => {
                running(number)?;
                self.proceed(state, number)
            }
            Action::Answer(number) => {
                running(number)?;
                self.answer(state, number)
            }
            Action::Stop(number) => {
                running(number)?;
                state.spend(2)?;
                state.programs[number].is_stopped = true;
                Some(())
            }
            Action::Continue(number) => {
                state.programs[number].is_stopped.then_some(())?;
                state.programs[number].is_stopped = false;
                Some(())
            }
            Action::Kill(number) => {
                (!state.programs[number].is_dead).then_some(())?;
                state.kill(number)
            }
            Action::GiveUp(number) => {
                let bit = 1 << number;
                (state.programs[number].is_stopped && state.awaited & !state.excused & bit != 0)
                    .then_some(())?;
                state.excused |= bit;
                Some(())
            }
            Action::Reuse(block) => {
                (state.owners[block] == Owner::Free).then_some(())?;
                (state.owners[block], state.medium[block]) = (Owner::Other, FOREIGN);
                Some(())
            }
        }
    }
}

impl DataState {
    fn begin(&mut self, action: Action, number: usize) -> Option<()> {
        let size = self.current_size();
        let program = &mut self.programs[number];
        (program.doing == Doing::Nothing).then_some(())?;
        program.doing = match action {
            Action::Look(_) if program.right >= Right::Read && size > 0 => Doing::Looked(true),
            Action::Write(_) if program.right == Right::Write && size > 0 => Doing::Writing,
            Action::Append(_) if program.right == Right::Write => {
                let (end, _) = program.word.filter(|(end, mark)| !mark && *end < program.room)?;
                Doing::Appending(end)
            }
            _ => return None,
        };
        Some(())
    }

    /// Replaces the word, if it is what it was: then the value is in the file, as the program's caller is told.
    fn replace(&mut self, number: usize, end: u8, value: u8) {
        if self.programs[number].word == Some((end, false)) {
            self.programs[number].word = Some((end + 1, false));
            self.told.push(value);
        }
    }

    fn kill(&mut self, number: usize) -> Option<()> {
        self.spend(2)?;
        let program = &mut self.programs[number];
        (program.is_dead, program.is_stopped) = (true, false);
        (program.right, program.doing) = (Right::None, Doing::Nothing);
        self.is_rid(number);
        Some(())
    }
}
