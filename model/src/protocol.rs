//! Who may do what when.

use stateright::{Model, Property};

use crate::client::{Block, Life, Mapping, Page, ToClient};
use crate::invariants;
use crate::server::{Change, Effect, Owner};
use crate::state::{FAILURES, SWITCHES, State, TRUNCATIONS, WRITES};

/// What another file's data look like.
pub(crate) const FOREIGN: u8 = 99;

/// How the protocol is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// As it should be.
    #[default]
    Right,
    /// The kind of a mapping is looked up at each fault, and a switch recalls nothing: as kernels did when they switched the
    /// feature off.
    KindAtFault,
    /// What was granted before a recall is mapped after it.
    LateInstall,
    /// A block is given away while a program may still reach it.
    EarlyReuse,
    /// Allocating a hole leaves the zeroes that others have mapped in its place.
    ZeroesStay,
    /// A read fault after a recall maps zeroes, though there is a block.
    ZeroesOverBlock,
    /// The cache is not dropped before the first direct access.
    CacheStays,
    /// Synchronous mappings are recalled for a switch like others.
    SyncRecalled,
}

/// A protocol to be checked.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// How it is followed.
    pub variant: Variant,
    /// Programs.
    pub clients: usize,
    /// Blocks of the medium.
    pub blocks: u8,
    /// How often a program or the mount may write.
    pub writes: u8,
    /// How often the file may be cut.
    pub truncations: u8,
    /// How often somebody asks for a switch.
    pub switches: u8,
    /// How often a program may be stopped or killed.
    pub failures: u8,
    /// This program's mappings are made with `MAP_SYNC`.
    pub synchronous: Option<usize>,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A program maps the file.
    Map(usize),
    /// A program unmaps it.
    Unmap(usize),
    /// A program touches its mapping, to write or to read, and there is no page.
    Fault(usize, bool),
    /// The server answers a fault.
    Serve(usize),
    /// A thread of a program takes an answer from the socket,
    Take(usize),
    /// and acts upon it.
    Install(usize),
    /// A thread of a program answers a recall.
    Answer(usize),
    /// A program stores to its mapping.
    Store(usize),
    /// A program is stopped,
    Stop(usize),
    /// goes on,
    Continue(usize),
    /// or is killed.
    Kill(usize),
    /// The server gives up on a program that was stopped.
    GiveUp(usize),
    /// All recalls are answered: what is under way is done.
    Finish,
    /// A write through the mount.
    Write,
    /// The kernel writes its cache back.
    WriteBack,
    /// Somebody cuts the file, and makes it long again.
    Truncate,
    /// Somebody asks for the other effect, with `--revoke`.
    Switch,
    /// Another file takes a free block.
    Reuse(Block),
}

impl Protocol {
    /// What the server does about a fault.
    fn serve(&self, state: &mut State, number: usize) -> Option<()> {
        let client = &state.clients[number];
        let writes = client.fault.filter(|_| client.is_asked && client.life != Life::Dead)?;
        if state.change.is_some() {
            return None;
        }
        if state.effect == Effect::Buffered {
            state.grant(number, None);
            return Some(());
        }
        state.leases |= 1 << number;
        match state.home {
            Some(_) if !writes && self.variant == Variant::ZeroesOverBlock => {
                state.grant(number, Some(Page::Zero));
            }
            Some(block) => state.grant(number, Some(Page::Block(block))),
            None if !writes => state.grant(number, Some(Page::Zero)),
            None => {
                let block = state.take_block()?;
                self.allocate(state, Change::Allocate { block, fault: Some(number), value: 0 });
            }
        }
        Some(())
    }

    /// Begins an allocation: first, nobody may have zeroes in its place, not even who asks for it: others may write to the block
    /// before it is mapped there.
    fn allocate(&self, state: &mut State, change: Change) {
        state.change = Some(change);
        if self.variant != Variant::ZeroesStay {
            state.recall();
        }
    }

    fn install(&self, state: &mut State, number: usize) -> Option<()> {
        let client = &mut state.clients[number];
        let grant = client.in_hand.take()?;
        client.fault = None;
        let is_late = grant.epoch != client.epoch && self.variant != Variant::LateInstall;
        if is_late || client.mapping == Mapping::None {
            // The program touches it again.
            return Some(());
        }
        client.mapping = match grant.page {
            Some(page) => Mapping::Direct(page),
            None => Mapping::Buffered,
        };
        if client.mapping == Mapping::Buffered && state.effect == Effect::Direct {
            // The kernel opens and maps it as it is by then.
            client.mapping = Mapping::Armed;
        }
        Some(())
    }

    /// A store by a program to what it has mapped.
    fn store(&self, state: &mut State, number: usize) -> Option<()> {
        let value = state.new_value(self) + 1;
        match state.clients[number].mapping {
            Mapping::Direct(Page::Block(block)) => {
                state.spend(WRITES)?;
                state.medium[usize::from(block)] = value;
                let counts = state.home == Some(block);
                if counts {
                    state.latest = value;
                }
            }
            Mapping::Buffered => {
                state.spend(WRITES)?;
                state.cache = Some((value, true));
                state.latest = value;
            }
            _ => return None,
        }
        Some(())
    }

    fn write(&self, state: &mut State) -> Option<()> {
        if state.change.is_some() {
            return None;
        }
        let value = state.new_value(self) + 1;
        state.spend(WRITES)?;
        let block = match (state.home, state.effect) {
            (None, Effect::Direct) => {
                let block = state.take_block()?;
                self.allocate(state, Change::Allocate { block, fault: None, value });
                return Some(());
            }
            // The cache is written through, and nobody has mapped the hole.
            (None, Effect::Buffered) => state.take_block()?,
            (Some(block), _) => block,
        };
        state.home = Some(block);
        state.medium[usize::from(block)] = value;
        state.latest = value;
        if state.effect == Effect::Buffered {
            state.cache = Some((value, false));
        }
        Some(())
    }

    fn truncate(&self, state: &mut State) -> Option<()> {
        if state.change.is_some() || state.home.is_none() {
            return None;
        }
        state.spend(TRUNCATIONS)?;
        state.recall();
        state.release_home(self.variant);
        // Pages of the cache go as well, mapped or not.
        state.cache = None;
        state.change = Some(Change::Truncate);
        Some(())
    }

    fn switch(&self, state: &mut State) -> Option<()> {
        if state.change.is_some() {
            return None;
        }
        state.spend(SWITCHES)?;
        match state.effect {
            Effect::Direct => {
                if state.is_synchronous && self.variant != Variant::SyncRecalled {
                    return Some(()); // EBUSY
                }
                if self.variant == Variant::KindAtFault {
                    state.effect = Effect::Buffered;
                } else {
                    state.recall();
                    state.change = Some(Change::Switch);
                }
            }
            Effect::Buffered => {
                if state.clients.iter().any(|client| client.mapping == Mapping::Buffered) {
                    return Some(()); // EBUSY
                }
                if let Some((value, true)) = state.cache {
                    let block = state.home.or_else(|| state.take_block())?;
                    state.home = Some(block);
                    state.medium[usize::from(block)] = value;
                }
                if self.variant != Variant::CacheStays {
                    state.cache = None;
                }
                state.effect = Effect::Direct;
            }
        }
        Some(())
    }

    fn map(&self, state: &mut State, number: usize) -> Option<()> {
        let client = &mut state.clients[number];
        if client.mapping != Mapping::None || client.fault.is_some() || client.in_hand.is_some() {
            return None;
        }
        match state.effect {
            Effect::Direct if state.change.is_none() => {
                client.mapping = Mapping::Armed;
                state.leases |= 1 << number;
                state.is_synchronous |= self.synchronous == Some(number);
            }
            Effect::Buffered => client.mapping = Mapping::Buffered,
            Effect::Direct => return None,
        }
        Some(())
    }

    fn kill(&self, state: &mut State, number: usize) -> Option<()> {
        state.spend(FAILURES)?;
        let client = &mut state.clients[number];
        client.life = Life::Dead;
        client.forget();
        state.leases &= !(1 << number);
        state.is_synchronous &= self.synchronous != Some(number);
        state.answered(number);
        Some(())
    }

    /// A step of a program that runs.
    fn step_of_client(&self, state: &mut State, action: Action, number: usize) -> Option<()> {
        if state.clients[number].life != Life::Alive {
            return None;
        }
        match action {
            Action::Map(_) => self.map(state, number),
            Action::Unmap(_) => {
                let client = &mut state.clients[number];
                let is_quiet = client.fault.is_none() && client.in_hand.is_none() && client.inbox.is_empty();
                (client.mapping != Mapping::None && is_quiet).then_some(())?;
                client.mapping = Mapping::None;
                state.leases &= !(1 << number);
                state.is_synchronous &= self.synchronous != Some(number);
                Some(())
            }
            Action::Fault(_, writes) => {
                let client = &mut state.clients[number];
                let has_page = match client.mapping {
                    Mapping::Armed => false,
                    Mapping::Direct(Page::Zero) => !writes,
                    _ => true,
                };
                (!has_page && client.fault.is_none()).then_some(())?;
                (client.fault, client.is_asked) = (Some(writes), true);
                Some(())
            }
            Action::Take(_) => {
                let client = &mut state.clients[number];
                let Some(&ToClient::Grant(grant)) = client.inbox.first() else { return None };
                client.inbox.remove(0);
                client.in_hand = Some(grant);
                Some(())
            }
            Action::Install(_) => self.install(state, number),
            Action::Answer(_) => state.answer(number),
            Action::Store(_) => self.store(state, number),
            Action::Stop(_) => {
                state.spend(FAILURES)?;
                state.clients[number].life = Life::Stopped;
                Some(())
            }
            _ => None,
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self)]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        use Action::{
            Answer, Continue, Fault, Finish, GiveUp, Install, Kill, Map, Reuse, Serve, Stop, Store, Switch,
            Take, Truncate, Unmap, Write, WriteBack,
        };
        for number in 0..self.clients {
            actions.extend([Map(number), Unmap(number), Fault(number, false), Fault(number, true)]);
            actions.extend([Serve(number), Take(number), Install(number), Answer(number), Store(number)]);
            actions.extend([Stop(number), Continue(number), Kill(number), GiveUp(number)]);
        }
        actions.extend([Finish, Write, WriteBack, Truncate, Switch]);
        actions.extend((0..self.blocks).map(Reuse));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let was_still = state.change.is_none();
        match action {
            Action::Serve(number) => self.serve(&mut state, number),
            Action::Continue(number) if last.clients[number].life == Life::Stopped => {
                state.clients[number].life = Life::Alive;
                Some(())
            }
            Action::Kill(number) if last.clients[number].life != Life::Dead => self.kill(&mut state, number),
            Action::GiveUp(number) => {
                let is_stopped = last.clients[number].life == Life::Stopped;
                (is_stopped && last.awaited & !last.excused & 1 << number != 0).then(|| {
                    state.excused |= 1 << number;
                })
            }
            Action::Finish => state.finish(),
            Action::Write => self.write(&mut state),
            Action::WriteBack => state.write_back(),
            Action::Truncate => self.truncate(&mut state),
            Action::Switch => self.switch(&mut state),
            Action::Reuse(block) if last.owners[usize::from(block)] == Owner::Free => {
                state.owners[usize::from(block)] = Owner::Other;
                state.medium[usize::from(block)] = FOREIGN;
                Some(())
            }
            Action::Continue(_) | Action::Kill(_) | Action::Reuse(_) => None,
            Action::Map(number)
            | Action::Unmap(number)
            | Action::Fault(number, _)
            | Action::Take(number)
            | Action::Install(number)
            | Action::Answer(number)
            | Action::Store(number)
            | Action::Stop(number) => self.step_of_client(&mut state, action, number),
        }?;
        if was_still && state.change.is_some() && state.awaited == 0 {
            // Nobody has to be waited for.
            state.finish()?;
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one copy", invariants::one_copy),
            Property::always("the block that counts", invariants::the_block_that_counts),
            Property::always("no stale zeroes", invariants::no_stale_zeroes),
            Property::always("nobody else's block", invariants::nobody_elses_block),
            Property::always("what was written is read", invariants::what_was_written_is_read),
            Property::always("a synchronous mapping stays", invariants::a_synchronous_mapping_stays),
            // So that nothing of this is true only because it never comes to it.
            Property::sometimes(
                "both have mapped the block",
                invariants::reached::both_have_mapped_the_block,
            ),
            Property::sometimes("a block is in quarantine", invariants::reached::a_block_is_in_quarantine),
            Property::sometimes("somebody was given up on", invariants::reached::somebody_was_given_up_on),
            Property::sometimes("buffered, and mapped", invariants::reached::buffered_and_mapped),
            Property::sometimes("direct again", invariants::reached::direct_again),
        ]
    }
}
