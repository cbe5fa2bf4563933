//! Everything that there is, and what happens to it by itself.

use crate::client::{Block, Client, Grant, Mapping, Page, ToClient};
use crate::protocol::{FOREIGN, Protocol, Variant};
use crate::server::{Change, Effect, Owner};

/// A state of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// How the file is reached.
    pub effect: Effect,
    /// Its block; a hole if there is none.
    pub home: Option<Block>,
    /// Whose each block is.
    pub owners: Vec<Owner>,
    /// What is in each block.
    pub medium: Vec<u8>,
    /// What is in the kernel's cache, if anything, and whether it is newer than the medium.
    pub cache: Option<(u8, bool)>,
    /// What was written last.
    pub latest: u8,
    /// What is under way.
    pub change: Option<Change>,
    /// Programs that have not answered a recall (one bit each).
    pub awaited: u8,
    /// Programs that were given up on because they were stopped, and have not answered since.
    pub excused: u8,
    /// Programs with a lease.
    pub leases: u8,
    /// Recalls sent to each program.
    pub epochs: Vec<u8>,
    /// The programs.
    pub clients: Vec<Client>,
    /// The program with synchronous mappings has one.
    pub is_synchronous: bool,
    /// What may still be done: writes, truncations, switches, failures.
    pub left: [u8; 4],
}

pub(crate) const WRITES: usize = 0;
pub(crate) const TRUNCATIONS: usize = 1;
pub(crate) const SWITCHES: usize = 2;
pub(crate) const FAILURES: usize = 3;

impl State {
    pub(crate) fn new(protocol: &Protocol) -> Self {
        Self {
            effect: Effect::Direct,
            home: None,
            owners: vec![Owner::Free; usize::from(protocol.blocks)],
            medium: vec![FOREIGN; usize::from(protocol.blocks)],
            cache: None,
            latest: 0,
            change: None,
            awaited: 0,
            excused: 0,
            leases: 0,
            epochs: vec![0; protocol.clients],
            clients: vec![Client::new(); protocol.clients],
            is_synchronous: false,
            left: [protocol.writes, protocol.truncations, protocol.switches, protocol.failures],
        }
    }

    /// What a read through the mount gives.
    pub fn read(&self) -> u8 {
        let stored = self.home.map_or(0, |block| self.medium[usize::from(block)]);
        match self.effect {
            Effect::Direct => stored,
            Effect::Buffered => self.cache.map_or(stored, |(value, _)| value),
        }
    }

    pub(crate) fn spend(&mut self, what: usize) -> Option<()> {
        self.left[what] = self.left[what].checked_sub(1)?;
        Some(())
    }

    pub(crate) fn new_value(&self, protocol: &Protocol) -> u8 {
        protocol.writes - self.left[WRITES]
    }

    /// Sends recalls to all programs with a lease, and waits for them.
    pub(crate) fn recall(&mut self) {
        for number in 0..self.clients.len() {
            if self.leases & 1 << number != 0 {
                self.epochs[number] += 1;
                let recall = ToClient::Recall(self.epochs[number]);
                self.clients[number].inbox.push(recall);
                self.awaited |= 1 << number;
            }
        }
    }

    /// A program has answered all recalls, or is gone.
    pub(crate) fn answered(&mut self, number: usize) {
        let others = !(1 << number);
        self.awaited &= others;
        self.excused &= others;
        for owner in &mut self.owners {
            if let Owner::Quarantined(waiting) = owner {
                *waiting &= others;
                if *waiting == 0 {
                    *owner = Owner::Free;
                }
            }
        }
    }

    /// Takes the file's block away, until nobody can reach it any more.
    pub(crate) fn release_home(&mut self, variant: Variant) {
        let Some(block) = self.home.take() else { return };
        let waiting = if variant == Variant::EarlyReuse { 0 } else { self.awaited };
        self.owners[usize::from(block)] =
            if waiting == 0 { Owner::Free } else { Owner::Quarantined(waiting) };
    }

    /// A free block, zeroed.
    pub(crate) fn take_block(&mut self) -> Option<Block> {
        let block = self.owners.iter().position(|owner| *owner == Owner::Free)?;
        self.owners[block] = Owner::File;
        self.medium[block] = 0;
        Some(block as Block)
    }

    pub(crate) fn grant(&mut self, number: usize, page: Option<Page>) {
        let epoch = self.epochs[number];
        self.clients[number].is_asked = false;
        self.clients[number].inbox.push(ToClient::Grant(Grant { page, epoch }));
    }

    pub(crate) fn finish(&mut self) -> Option<()> {
        if self.awaited & !self.excused != 0 {
            return None;
        }
        match self.change.take()? {
            Change::Truncate => self.latest = 0,
            Change::Allocate { block, fault, value } => {
                self.home = Some(block);
                if let Some(number) = fault {
                    if self.clients[number].is_asked {
                        self.grant(number, Some(Page::Block(block)));
                    }
                } else {
                    self.medium[usize::from(block)] = value;
                    self.latest = value;
                }
            }
            Change::Switch if self.excused != 0 => {
                // Somebody who was stopped may still reach the medium: EBUSY.
            }
            Change::Switch => {
                self.effect = Effect::Buffered;
                self.leases = 0;
            }
        }
        Some(())
    }

    pub(crate) fn write_back(&mut self) -> Option<()> {
        let (value, true) = self.cache? else { return None };
        if self.change.is_some() {
            return None;
        }
        let block = match self.home {
            Some(block) => block,
            None => self.take_block()?,
        };
        self.home = Some(block);
        self.medium[usize::from(block)] = value;
        self.cache = Some((value, false));
        Some(())
    }

    pub(crate) fn answer(&mut self, number: usize) -> Option<()> {
        let client = &mut self.clients[number];
        let Some(&ToClient::Recall(epoch)) = client.inbox.first() else { return None };
        client.inbox.remove(0);
        client.epoch = epoch;
        if client.page().is_some() {
            client.mapping = Mapping::Armed;
        }
        if !client.is_recalled() {
            self.answered(number);
        }
        Some(())
    }
}
